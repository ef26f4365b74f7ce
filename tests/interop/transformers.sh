#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The real model against PyTorch in float32: logits, sums of log-likelihood, norm gradients; and the directory that
# nt-pack wrote, loaded by transformers, gives the numbers that nt-eval gives for the stream.
. tests/interop/lib.bash
need NT_SMOLLM2 NT_INTEROP_PYTHON
m=$NT_SMOLLM2 q="--progress none"
export TRANSFORMERS_VERBOSITY=error
prose "$tmp/text"
nt-gen-calib $q -m "$m" --scheme text --text "$tmp/text" -n 8 -T 256 -o "$tmp/c.nts" 2>/dev/null
"$NT_INTEROP_PYTHON" - "$tmp/text" >"$tmp/text.json" <<'P'
import json, sys
print(json.dumps(open(sys.argv[1]).read()[2000:6000]))
P
nt-gen-calib -m "$m" --encode <"$tmp/text.json" | "$NT_INTEROP_PYTHON" -c '
import json, sys
i = json.load(sys.stdin)
print(json.dumps([i[0:192], i[192:384], i[384:576]]))' >"$tmp/ids.json"

check "PyTorch's logits and norm gradients" "$NT_INTEROP_PYTHON" tests/interop/torch_ref.py dump "$m" "$tmp/ids.json" "$tmp/theirs.st" grads
check "nt-eval --dump" nt-eval $q -m "$m" --ids "$tmp/ids.json" --dump nll,logits,norm-grads -o "$tmp/ours.st"
check "equal: logits within 1e-4 of the largest, gradients within 2e-4" \
    "$NT_INTEROP_PYTHON" tests/interop/torch_ref.py compare "$tmp/ours.st" "$tmp/theirs.st"

nt-collect $q -m "$m" "$tmp/c.nts" -o "$tmp/s.nts" 2>/dev/null
nt-quant $q -m "$m" -q gptq -b 3 -g 128 --act-order "$tmp/s.nts" -o "$tmp/w3.nts" 2>/dev/null
nt-tweak $q -m "$m" --tokens "$tmp/c.nts" "$tmp/w3.nts" -o "$tmp/w3nt.nts" 2>/dev/null
check "nt-pack --format hf, in shards" nt-pack $q -m "$m" "$tmp/w3nt.nts" --format hf --norms new --max-shard-size 200M -o "$tmp/hf"
check "transformers loads the shards" "$NT_INTEROP_PYTHON" tests/interop/torch_ref.py dump "$tmp/hf" "$tmp/ids.json" "$tmp/theirs.st"
check "nt-eval --dump of the stream" nt-eval $q -m "$m" --qweights "$tmp/w3nt.nts" --norms new --ids "$tmp/ids.json" --dump nll,logits -o "$tmp/ours.st"
check "equal: the stream and what transformers loaded" \
    "$NT_INTEROP_PYTHON" tests/interop/torch_ref.py compare "$tmp/ours.st" "$tmp/theirs.st"
tokenizes() {
    "$NT_INTEROP_PYTHON" tests/interop/torch_ref.py ids "$tmp/hf" "$tmp/text.json" >"$tmp/a" 2>"$tmp/err" || { tail -n 3 "$tmp/err" >&2; return 1; }
    nt-gen-calib -m "$m" --encode <"$tmp/text.json" | tr -d ' ' | cmp - "$tmp/a"
}
check "its tokenizer, made from the GGUF's keys, gives the same ids" tokenizes
finish
