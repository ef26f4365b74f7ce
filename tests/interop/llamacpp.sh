#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# llama.cpp reads what nt-pack wrote and measures the same perplexity, before and after new norms; the same ids.
. tests/interop/lib.bash
need NT_SMOLLM2 NT_LLAMA_BIN
m=$NT_SMOLLM2 q="--progress none" chunks=8
prose "$tmp/text"

nt_ppl() { nt-eval $q "$@" --ppl "$tmp/text" --protocol llama.cpp-512 --windows $chunks | value ppl; }
same_ppl() { local a b; a=$(nt_ppl -m "$1"); b=$(llama_ppl "$1" "$tmp/text" $chunks); echo "$b" >"$tmp/${1##*/}.ppl"; echo "# $1: nt-eval $a, llama.cpp $b" >>"$tmp/log"; near "$a" "$b" "$2"; }

ids() {
    "$NT_LLAMA_BIN/llama-tokenize" -m "$m" -f "$tmp/text" --ids --no-bos --no-escape --log-disable 2>/dev/null | tail -n 1 | tr -d ' ' >"$tmp/a"
    "$PYTHON" -c 'import json, sys; print(json.dumps(sys.stdin.read()))' <"$tmp/text" | nt-gen-calib -m "$m" --encode | tr -d ' ' >"$tmp/b"
    [ -s "$tmp/a" ] && cmp "$tmp/a" "$tmp/b"
}
check "ids of $(wc -c <"$tmp/text") bytes of text equal llama-tokenize's" ids

check "llama-quantize makes the F32 form" "$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$m" "$tmp/f32.gguf" F32
check "perplexity of the F32 file equals llama.cpp's within 0.1 %" same_ppl "$tmp/f32.gguf" 0.001
check "perplexity of the Q4_1 file equals llama.cpp's within $llama_near" same_ppl "$m" $llama_near

nt-gen-calib $q -m "$m" --scheme text --text "$tmp/text" -n 16 -T 256 -o "$tmp/c.nts" 2>>"$tmp/log"
nt-collect $q -m "$m" "$tmp/c.nts" -o "$tmp/s.nts" 2>>"$tmp/log"
nt-quant $q -m "$m" -q gptq -b 3 -g 128 --act-order "$tmp/s.nts" -o "$tmp/w3.nts" 2>>"$tmp/log"
nt-pack $q -m "$m" "$tmp/w3.nts" --format gguf -o "$tmp/w3.gguf" 2>>"$tmp/log"
check "GPTQ W3 g128 as GGUF: the same perplexity within $llama_near" same_ppl "$tmp/w3.gguf" $llama_near
check "what nt-pack wrote measures like the stream" \
    near "$(nt_ppl -m "$tmp/w3.gguf")" "$(nt_ppl -m "$m" --qweights "$tmp/w3.nts")" 0.0001

nt-quant $q -m "$m" -q gptq -b 4 -g 32 --sym --act-order "$tmp/s.nts" -o "$tmp/w4.nts" 2>>"$tmp/log"
nt-tweak $q -m "$m" --tokens "$tmp/c.nts" "$tmp/w4.nts" -o "$tmp/w4nt.nts" 2>>"$tmp/log"
nt-pack $q -m "$m" "$tmp/w4.nts" --format gguf -o "$tmp/w4.gguf" 2>>"$tmp/log"
nt-pack $q -m "$m" "$tmp/w4nt.nts" --format gguf --norms new -o "$tmp/w4nt.gguf" 2>>"$tmp/log"
check "W4 g32 symmetric leaves as Q4_0: the file stays below 100 MB" test "$(stat -c %s "$tmp/w4.gguf")" -lt 100000000
check "before the tweak: llama.cpp measures the same within $llama_near" same_ppl "$tmp/w4.gguf" $llama_near
check "after the tweak: llama.cpp measures the same within $llama_near" same_ppl "$tmp/w4nt.gguf" $llama_near
check "only norms differ between the two files" bash -c 'test "$(cmp -l "$1" "$2" | wc -l)" -le $((61 * 576 * 4)) && ! cmp -s "$1" "$2"' _ "$tmp/w4.gguf" "$tmp/w4nt.gguf"

# Without a template: keys and vocabulary made of a directory of Hugging Face's kind.
scratch() {
    nt-pack $q -m "$m" "$tmp/w4.nts" --format hf --dtype f16 -o "$tmp/hf" && nt-quant $q -m "$tmp/hf" -q rtn -b 4 -g 32 --sym -o "$tmp/s4.nts" &&
        nt-pack $q -m "$tmp/hf" "$tmp/s4.nts" --format gguf -o "$tmp/s4.gguf" && rm -r "$tmp/hf"
}
scratch_ids() {
    "$NT_LLAMA_BIN/llama-tokenize" -m "$tmp/s4.gguf" -f "$tmp/text" --ids --no-bos --no-escape --log-disable 2>/dev/null | tail -n 1 | tr -d ' ' | cmp - "$tmp/b"
}
check "a GGUF file from scratch" scratch
check "from scratch: llama-tokenize gives the same ids" scratch_ids
check "from scratch: the same perplexity within $llama_near" same_ppl "$tmp/s4.gguf" $llama_near

# The finished file improved in place of being packed again: a copy of it with the tweaked norms, by way of the stream and
# by way of an overlay. llama.cpp measured w4nt.gguf above, which both must equal byte for byte.
check "norms-into: the finished GGUF with new norms" nt-pack $q -m "$m" "$tmp/w4nt.nts" --norms new \
    --norms-into "$tmp/w4.gguf" -o "$tmp/into.gguf"
check "its bytes are those of the tweaked model packed anew" cmp "$tmp/into.gguf" "$tmp/w4nt.gguf"
check "an overlay of the new norms" nt-pack $q -m "$m" "$tmp/w4nt.nts" --norms new --format overlay -o "$tmp/norms.safetensors"
check "the overlay is below 512 KiB" test "$(stat -c %s "$tmp/norms.safetensors")" -lt $((512 * 1024))
check "applied to the finished GGUF" nt-pack $q --apply "$tmp/norms.safetensors" -m "$tmp/w4.gguf" -o "$tmp/over.gguf"
check "it gives the same file" cmp "$tmp/over.gguf" "$tmp/w4nt.gguf"
falls() { awk -v a="$(cat "$tmp/w4.gguf.ppl")" -v b="$(cat "$tmp/w4nt.gguf.ppl")" 'BEGIN { print "# llama.cpp: perplexity", a, "before,", b, "after"; exit !(b < a) }' >>"$tmp/log"; }
check "llama.cpp's perplexity of the finished file falls" falls

check "llama-quantize dequantizes the finished file" "$NT_LLAMA_BIN/llama-quantize" --allow-requantize "$tmp/w4.gguf" "$tmp/w4f.gguf" F32
check "its own dequantization has the stream's weights" nt-pack $q "$tmp/w4.nts" --norms-into "$tmp/w4f.gguf" -o "$tmp/same.gguf"
check "and the norms are there already" cmp "$tmp/w4f.gguf" "$tmp/same.gguf"
grep '^#' "$tmp/log" | sed "s|$tmp/||"
finish
