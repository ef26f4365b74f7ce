#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SmolLM2 as other projects' quantizers leave it (llama.cpp, GPTQModel, AutoRound, llm-compressor, mlx-lm), each file improved by
# pipelines/improve.sh and measured before and after by pipelines/showpiece.sh: the divergence falls for every one, and
# llama-perplexity sees what nt-eval sees. An hour and a half on two cores, so it runs only if NT_SHOWPIECE names a directory to
# work in; what is there already is kept. NT_FOREIGN_PYTHON as in foreign.sh. Three texts, none of which shares prose with another
# (texts.py makes the first two of a package from PyPI): NT_QUANT_TEXT for the quantizers, NT_CALIB_TEXT for the tweak, NT_TEXT to
# measure on. WORDS, as pipelines/showpiece.sh has it, names LAMBADA. NT_SHOWPIECE_FILES chooses among the files. With the argument
# make only the quantized files are made.
. tests/interop/lib.bash
need NT_SHOWPIECE NT_SMOLLM2 NT_LLAMA_BIN NT_FOREIGN_PYTHON NT_QUANT_TEXT NT_CALIB_TEXT NT_TEXT
files=${NT_SHOWPIECE_FILES:-q3_k_s.gguf q2_k-pure.gguf iq2_xs.gguf gptqmodel-w3 autoround-w3 llmcompressor-w3 mlx-w3}
dir=$NT_SHOWPIECE q="--progress none"
mkdir -p "$dir/theirs"

# ---- the float model in the forms that the quantizers take ----
once() { local out=$1; shift; [ -e "$out" ] || check "${out#"$dir"/} is made" "$@"; }
float_directory() { nt-quant $q -q import "$NT_SMOLLM2" | nt-pack $q -m "$NT_SMOLLM2" --format hf --dtype bf16 -o "$dir/float-bf16"; }
imatrix() { "$NT_LLAMA_BIN/llama-imatrix" -m "$dir/float.gguf" -f "$NT_QUANT_TEXT" -c 512 --chunks 64 --no-ppl -o "$dir/imatrix.gguf"; }
once "$dir/float-bf16" float_directory
once "$dir/float.gguf" "$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$NT_SMOLLM2" "$dir/float.gguf" F32
once "$dir/imatrix.gguf" imatrix

gguf() { # TYPE[-pure].gguf [OPTION of llama-quantize]...
    local type=${1%.gguf}
    "$NT_LLAMA_BIN/llama-quantize" "${@:2}" "$dir/float.gguf" "$dir/theirs/$1" "$(tr a-z A-Z <<<"${type%-pure}")"
}
directory() { # NAME: TOOL-KIND, as foreign.py calls them
    local tool=${1%%-*} kind=${1#*-} n=16 # more take AutoRound and llm-compressor long
    [ "$tool" != mlx ] || kind=$kind-64-bfloat16
    [ "$tool" != gptqmodel ] || n=64
    mkdir -p "$dir/$tool" &&
        FOREIGN_T=512 FOREIGN_N=$n FOREIGN_ITERS=10 "$NT_FOREIGN_PYTHON" tests/interop/foreign.py \
            make "$tool" "$dir/float-bf16" "$NT_QUANT_TEXT" "$dir/$tool" "$kind" &&
        mv "$dir/$tool/$kind" "$dir/theirs/$1"
}
theirs=()
for f in $files; do
    case $f in
    iq*.gguf) once "$dir/theirs/$f" gguf "$f" --imatrix "$dir/imatrix.gguf" ;;
    # of this model's rows only those of ffn_down are whole blocks of 256: Q2_K without --pure has the very tensors of Q3_K_S
    *-pure.gguf) once "$dir/theirs/$f" gguf "$f" --pure ;;
    *.gguf) once "$dir/theirs/$f" gguf "$f" ;;
    *) once "$dir/theirs/$f" directory "$f" ;;
    esac
    theirs+=("$dir/theirs/$f")
done
[ "${1:-}" != make ] || finish

once "$dir/calib.nts" nt-gen-calib $q -m "$NT_SMOLLM2" --scheme text --text "$NT_CALIB_TEXT" -n 272 -T 256 --holdout 1/17 -o "$dir/calib.nts"
# shellcheck disable=SC2086
pipelines/showpiece.sh "$NT_SMOLLM2" "$dir/calib.nts" "$NT_TEXT" "$dir/better" "${theirs[@]}" -- $q --final-norm \
    ${NT_SHOWPIECE_OPTIONS:---norms-step relative --steps 24 --batch 4 --seq 256 --eval-every 24} >"$dir/table.tsv" 2>"$tmp/stderr"
ok $? "the divergence falls for every file"
sed 's/^/# /' "$tmp/stderr" "$dir/table.tsv"
kl() { awk -F'\t' -v f="$1" -v w="$2" '$1 == f && $2 == w { print $4 }' "$dir/table.tsv"; }
for f in $files; do
    awk -v a="$(kl "$f" before)" -v b="$(kl "$f" after)" 'BEGIN { exit !(a > 0 && b > 0 && b < a) }'
    ok $? "$f: $(kl "$f" before), then $(kl "$f" after)"
done

# ---- the stream has all of each ----
for f in $files; do again "$dir/theirs/$f"; ok $? "$f: --format same gives it back byte by byte"; done

# ---- llama.cpp measures the same ----
head -c 60000 "$NT_TEXT" >"$tmp/text"
ours() { nt-eval $q -m "$1" --ppl "$tmp/text" --protocol llama.cpp-512 --windows 16 | value ppl; }
for f in $files; do
    case $f in *.gguf) ;; *) continue ;; esac
    for which in theirs better; do
        theirs=$(llama_ppl "$dir/$which/$f" "$tmp/text" 16) ours=$(ours "$dir/$which/$f")
        near "$ours" "$theirs" "$llama_near"; ok $? "$which/$f: nt-eval $ours, llama-perplexity $theirs"
    done
done
finish
