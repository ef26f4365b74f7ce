# SPDX-License-Identifier: Apache-2.0
"""torch_ref.py dump MODEL(.gguf or HF directory) IDS.json OUT.safetensors: nll and logits in float32.
torch_ref.py ids DIRECTORY TEXT.json: the ids of a string by its tokenizer.
torch_ref.py compare OURS.safetensors THEIRS.safetensors: exit 0 when they agree."""
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file


def load(path):
    from transformers import AutoModelForCausalLM
    kw = dict(dtype=torch.float32, attn_implementation="eager")
    if path.endswith(".gguf"):
        return AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), **kw)
    return AutoModelForCausalLM.from_pretrained(path, **kw)


def dump(path, ids_file, out):
    ids = torch.tensor(json.load(open(ids_file)))
    m = load(path).eval()
    grads = "grads" in sys.argv[5:]
    for n, p in m.named_parameters():
        p.requires_grad_(grads and "norm" in n)
    logits = m(ids).logits
    # in double precision: float32 sums over a vocabulary of 49,152 cost more digits than the comparison allows
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten(), reduction="none")
    nll = nll.view(ids.shape[0], -1)
    t = {"logits": logits.detach().contiguous(), "nll": nll.sum(1).detach().float()}
    if grads:
        nll.mean().backward()
        t.update({f"grad.{n}": p.grad for n, p in m.named_parameters() if "norm" in n})
    save_file(t, out)


def compare(ours, theirs):
    a, b = load_file(ours), load_file(theirs)
    ok = True
    for name in sorted(b):
        if name.startswith("grad.") and name not in a:
            # GGUF files carry llama.cpp's names
            part = name.split(".")
            short = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
            alt = f"grad.blk.{part[3]}.{short[part[4]]}.weight" if len(part) > 4 else "grad.output_norm.weight"
            x = a.get(alt)
        else:
            x = a.get(name)
        y = b[name]
        if x is None:
            print("missing", name)
            ok = False
            continue
        bound = {"logits": 1e-4, "nll": 1e-5}.get(name, 2e-4)
        rel = (x.double() - y.double()).abs().max().item() / y.abs().max().item()
        if rel > bound:
            print(f"{name}: {rel:.3g} of the largest value (bound {bound})")
        ok &= rel <= bound
    print(len(b), "tensors")
    return 0 if ok else 1


def ids(path, text):
    from transformers import AutoTokenizer
    print(json.dumps(AutoTokenizer.from_pretrained(path)(json.load(open(text)))["input_ids"], separators=(",", ":")))


if sys.argv[1] == "dump":
    dump(*sys.argv[2:5])
elif sys.argv[1] == "ids":
    ids(*sys.argv[2:4])
else:
    sys.exit(compare(*sys.argv[2:4]))
