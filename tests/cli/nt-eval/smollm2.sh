# SPDX-License-Identifier: Apache-2.0
# The real model against PyTorch f32 (tests/data/model/smollm2.py). Opt-in: NT_SMOLLM2 = path of SmolLM2-135M-Instruct.Q4_1.gguf.
. tests/cli/nt-eval/lib.bash
need NT_SMOLLM2
need_python
want=$D/smollm2.expected.safetensors
"$PYTHON" tests/cli/nt-eval/dump.py ids $want >"$tmp/ids.json"
ev -m "$NT_SMOLLM2" --ids "$tmp/ids.json" --dump nll,logits,norm-grads -o "$tmp/o.safetensors"; ok $? "dumped"
"$PYTHON" tests/cli/nt-eval/dump.py sample $want "$tmp/o.safetensors" gguf >"$tmp/out" 2>&1
ok $? "logits, nll and norm gradients are PyTorch's to 1e-4 of the largest"
sed 's/^/# /' "$tmp/out"
finish
