#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tiny model of every family, quantized, tweaked and packed as a Hugging Face directory: transformers loads all of its
# tensors and computes what nt-eval does for the stream. LINE_FAMILIES limits it to some.
. tests/interop/lib.bash
need NT_INTEROP_PYTHON
need_python
q="--progress none"
export TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore HF_HUB_DISABLE_PROGRESS_BARS=1

packed() { # NAME
    local m=$tmp/$1 norms=new
    "$PYTHON" tests/cli/nt-collect/tokens.py "$m.calib" 2 "$m.c.nts" &&
        nt-quant $q -m "$m" -q rtn -b 4 -g 8 -o "$m.w.nts" || return
    nt-tweak $q -m "$m" --tokens "$m.c.nts" --lr 1e-2 "$m.w.nts" -o "$m.q.nts" 2>/dev/null || { cp "$m.w.nts" "$m.q.nts"; norms=old; }
    nt-eval $q -m "$m" --qweights "$m.q.nts" --norms $norms --ids "$m.ids" --dump logits -o "$m.ours" &&
        nt-pack $q -m "$m" "$m.q.nts" --format hf --dtype f32 --norms $norms -o "$m.hf"
}

"$PYTHON" tests/cli/families/families.py make "$tmp" >"$tmp/names"
for name in ${LINE_FAMILIES:-$(cat "$tmp/names")}; do
    check "$name is packed" packed "$name"
    echo "$name" >>"$tmp/done"
done
"$NT_INTEROP_PYTHON" - "$tmp" >"$tmp/verdict" <<'P'
import json, os, sys
import numpy as np, torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM
d = sys.argv[1]
for name in open(os.path.join(d, "done")).read().split():
    p = os.path.join(d, name)
    try:
        attention = "sdpa" if name == "falcon-rw" else "eager"  # eager adds the ALiBi twice in transformers 5.23
        plain = dict(experts_implementation="eager") if "num_experts_per_tok" in open(p + ".hf/config.json").read() else {}
        m, info = AutoModelForCausalLM.from_pretrained(p + ".hf", dtype=torch.float64, attn_implementation=attention,
                                                       output_loading_info=True, **plain)
        missing = [k for k in info["missing_keys"]] + [k for k in info["unexpected_keys"]]
        with torch.no_grad():
            theirs = m.eval()(input_ids=torch.tensor(json.load(open(p + ".ids")))).logits.numpy()
        worst = np.abs(theirs - load_file(p + ".ours")["logits"]).max()
        print(int(bool(missing) or not worst < 5e-4), name, "in transformers: logits differ by %.1e" % worst, *missing[:3])
    except Exception as e:
        print(1, name, "in transformers:", str(e).replace("\n", " ")[:200])
P
ok $? "transformers ran"
while read -r status text; do ok "$status" "$text"; done <"$tmp/verdict"
finish
