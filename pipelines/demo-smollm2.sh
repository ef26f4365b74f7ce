#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The main job on a real model: calibrate, collect, quantize (RTN, GPTQ), tweak the norms, evaluate, pack.
#   MODEL=PATH   a GGUF file or HF directory (default: SmolLM2-135M-Instruct from PyPI)
#   TEXT=PATH    text to evaluate on (default: the held-out part of the generated tokens)
#   BITS=3 GROUP=128 N=32 T=512 WINDOWS=8   the cell of the table
#   SHORT=1      a small form of everything, for continuous integration
# Leaves everything in build/demo-smollm2; the table is table.tsv.
set -euo pipefail
O=${O:-build}
export PATH=$PWD/$O/bin:$PATH
dir=$O/demo-smollm2
bits=${BITS:-3} group=${GROUP:-128} n=${N:-32} T=${T:-512} windows=${WINDOWS:-8}
if [ -n "${SHORT:-}" ]; then n=8 T=128 windows=2; fi
mkdir -p "$dir"
model=${MODEL:-$(bash "$(dirname "$0")/get-smollm2.sh" "$dir")}
say() { printf '\n== %s\n' "$*" >&2; }

say "calibration data: the model's own text, $n x $T tokens"
nt-gen-calib -m "$model" -n "$n" -T "$T" --seed 1 -o "$dir/calib.nts"

say "statistics of the float model"
nt-collect -m "$model" "$dir/calib.nts" -o "$dir/stats.nts"

say "quantize: RTN and GPTQ, $bits bits, groups of $group"
nt-quant -m "$model" -q rtn -b "$bits" -g "$group" -o "$dir/rtn.nts"
nt-quant -m "$model" -q gptq -b "$bits" -g "$group" --act-order --clip mse "$dir/stats.nts" -o "$dir/gptq.nts"

say "tweak the norms of the GPTQ model"
nt-tweak -m "$model" --tokens "$dir/calib.nts" "$dir/gptq.nts" -o "$dir/gptq+nt.nts" --report "$dir/tweak-author.tsv"
nt-tweak -m "$model" --tokens "$dir/calib.nts" --loss nmse --lr 1e-3 --lr-scale 1 "$dir/gptq.nts" \
    -o "$dir/gptq+nt-nmse.nts" --report "$dir/tweak-nmse.tsv"

say "evaluate"
if [ -n "${TEXT:-}" ]; then
    on=(--ppl "$TEXT" --protocol gptq-2048 --windows "$windows")
else
    on=(--tokens "$dir/calib.nts")
fi
nt-eval -m "$model" "${on[@]}" --label float >"$dir/table.tsv"
for q in rtn gptq gptq+nt gptq+nt-nmse; do
    nt-eval -m "$model" --qweights "$dir/$q.nts" "${on[@]}" --ref "$model" --no-drift --label "$q" | tail -n +2 >>"$dir/table.tsv"
done

say "pack: float values as GGUF and safetensors"
rm -rf "$dir/gptq+nt.gguf" "$dir/gptq+nt-hf"
nt-pack -m "$model" "$dir/gptq+nt.nts" --format gguf -o "$dir/gptq+nt.gguf"
nt-pack -m "$model" "$dir/gptq+nt.nts" --format hf -o "$dir/gptq+nt-hf"

say "a file that stays low-bit: GPTQ W4 g32 symmetric as Q4_0, before and after the tweak"
nt-quant -m "$model" -q gptq -b 4 -g 32 --sym --act-order --clip mse "$dir/stats.nts" -o "$dir/w4.nts"
nt-tweak -m "$model" --tokens "$dir/calib.nts" "$dir/w4.nts" -o "$dir/w4+nt.nts"
nt-pack -m "$model" "$dir/w4.nts" --format gguf -o "$dir/w4.gguf"
nt-pack -m "$model" "$dir/w4+nt.nts" --format gguf -o "$dir/w4+nt.gguf"

# One line a model: what people compare.
printf '\n%-16s %6s %12s %10s %8s\n' model bits perplexity KL top-1
awk -F'\t' 'NR > 1 { if (!($1 in bits)) order[++n] = $1; bits[$1] = $8; v[$1, $2] = $5 }
    END { for (i = 1; i <= n; i++) { m = order[i]
          printf "%-16s %6.3f %12.3f %10s %8s\n", m, bits[m], v[m, "ppl"],
              (m, "kl") in v ? sprintf("%.4f", v[m, "kl"]) : "-", (m, "top1") in v ? sprintf("%.3f", v[m, "top1"]) : "-" } }' \
    "$dir/table.tsv"
printf '\nsizes\n'
(cd "$dir" && du -h --apparent-size "gptq+nt.gguf" "gptq+nt-hf/model.safetensors" w4.gguf w4+nt.gguf)
