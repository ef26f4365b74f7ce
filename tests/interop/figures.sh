#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Published figure of the reference model: SmolLM2-135M-Instruct (Q4_1 of PyPI) on the raw WikiText-2 test text,
# protocol gptq-2048, first 40 windows: perplexity 20.574 (PyTorch f32).
. tests/interop/lib.bash
[ -n "${NT_TEXT:-}" ] || { [ -r ../shared/data/wikitext-2-raw.test.txt ] && NT_TEXT=../shared/data/wikitext-2-raw.test.txt; }
need NT_SMOLLM2 NT_TEXT
p=$(nt-eval --progress none -m "$NT_SMOLLM2" --ppl "$NT_TEXT" --protocol gptq-2048 --windows 40 2>/dev/null | value ppl)
echo "# perplexity $p"
check "perplexity of the float model is 20.574 +- 0.01" awk -v p="$p" 'BEGIN { exit !(p > 20.564 && p < 20.584) }'
finish
