#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model-scope training of a tiny model in PyTorch float64: expected values for tests/unit/test_scope.c.

Model and token ids are those of ../collect, codes those of model.json (3 bits, groups of 16). Writes scope.json beside
itself: gradients of one batch by norms, final norm and scale factors for KL and KL + cross-entropy, and runs of AdamW with
warm-up, cosine decay and clipping on windows drawn by the documented generator. A scale is s0 * r with r trained; its
rounding to half precision, where asked for, is passed straight through by the gradient. With relative steps a gain is
g0 (1 + r) with r trained. Written from the description; no
code of nt-* is involved. Made with Python 3.11, PyTorch 2.15.0, transformers 5.23.0."""
import json
import math
import os
import torch
from torch.func import functional_call
from transformers import LlamaForCausalLM

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
here = os.path.dirname(os.path.abspath(__file__))
ROLES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
         "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
HOLD, WINDOW_STREAM = 2, 0x73636F7065


def philox(seed, stream, counter):
    """Philox4x32-10 of Salmon et al. 2011; key = seed, counter words 0-1 = counter, 2-3 = stream."""
    m = 0xFFFFFFFF
    c = [counter & m, counter >> 32, stream & m, stream >> 32]
    k = [seed & m, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & m, (a >> 32) ^ c[3] ^ k[1], a & m]
        k = [(k[0] + 0x9E3779B9) & m, (k[1] + 0xBB67AE85) & m]
    return c


def below(seed, counter, n):
    c = philox(seed, WINDOW_STREAM, counter)
    return ((c[1] << 32 | c[0]) * n) >> 64


def short(x):
    return [float(f"{v:.9g}") for v in torch.as_tensor(x).detach().flatten().tolist()]


class Student:
    def __init__(self, model, codes, with_scales, half, relative):
        self.model, self.half, self.lin = model, half, []
        gains = [(n, p.detach().clone()) for n, p in model.named_parameters() if "norm" in n]
        # what is trained, and what it stands for: start + unit * trained
        self.norms = [(n, (torch.zeros_like(p) if relative else p.clone()).requires_grad_()) for n, p in gains]
        self.start = [p if relative else torch.zeros_like(p) for _, p in gains]
        self.unit = [p if relative else torch.ones_like(p) for _, p in gains]
        self.scales = []
        for l, layer in enumerate(codes["layers"]):
            for r, path in ROLES.items():
                name = f"model.layers.{l}.{path}.weight"
                out, cols = dict(model.named_parameters())[name].shape
                g = codes["group"]
                c = torch.tensor([float(x) for x in layer[r]["codes"]]).reshape(out, cols // g, g)
                z = torch.tensor([float(x) for x in layer[r]["zero"]]).reshape(out, cols // g, 1)
                s = torch.tensor(layer[r]["scale"]).reshape(out, cols // g, 1)
                factor = torch.ones_like(s).requires_grad_(with_scales)
                self.lin.append((name, c - z, s, factor))
                if with_scales:
                    self.scales.append(factor)

    def gains(self):
        return {n: s + u * p for (n, p), s, u in zip(self.norms, self.start, self.unit)}

    def logits(self, ids):
        w = self.gains()
        for name, c, s, factor in self.lin:
            scale = s * factor
            if self.half:
                scale = scale + (scale.half().double() - scale).detach()
            w[name] = (scale * c).reshape(self.model.get_parameter(name).shape)
        return functional_call(self.model, w, (ids,)).logits


def loss_of(student, teacher, ids, kl, ce):
    q = torch.log_softmax(student.logits(ids), -1)
    with torch.no_grad():
        p = torch.log_softmax(teacher(ids).logits, -1)
    k = (p.exp() * (p - q)).sum(-1).mean()
    c = -q[:, :-1].gather(-1, ids[:, 1:, None]).mean()
    return kl * k + ce * c, k, c


def main():
    base = os.path.join(here, "..", "collect")
    model = LlamaForCausalLM.from_pretrained(os.path.join(base, "tiny"), dtype=torch.float32,
                                             attn_implementation="eager").double().eval()
    for p in model.parameters():
        p.requires_grad_(False)
    all_ids = torch.tensor(json.load(open(os.path.join(base, "ids.json"))))
    n_train, T = len(all_ids) - HOLD, all_ids.shape[1]
    codes = json.load(open(os.path.join(here, "model.json")))
    out = {"gradients": [], "runs": []}

    def windows(seed, step, batch, seq):
        at = [2 * (step * batch + i) for i in range(batch)]
        place = [(below(seed, a, n_train), below(seed, a + 1, T - seq + 1)) for a in at]
        return place, torch.stack([all_ids[i, o:o + seq] for i, o in place])

    def start_order(st):
        """block norms, final norm, then scales, as nt-tweak orders them"""
        blocks = [p for n, p in st.norms if n != "model.norm.weight"]
        return blocks, [p for n, p in st.norms if n == "model.norm.weight"]

    for name, kl, ce in (("kl", 1, 0), ("kl+ce", 1, 1)):
        st = Student(model, codes, True, False, False)
        place, ids = windows(7, 3, 3, 9)
        loss, k, c = loss_of(st, model, ids, kl, ce)
        blocks, final = start_order(st)
        grads = torch.autograd.grad(loss, blocks + final + st.scales)
        flat = torch.cat([g.flatten() for g in grads])
        out["gradients"].append({"loss": name, "seed": 7, "step": 3, "batch": 3, "seq": 9, "places": place,
                                 "kl": k.item(), "ce": c.item(), "grad": short(flat)})
    runs = [dict(name="norms", loss="kl", scales=0, final=0, half=1, lr=0.01, decay=0.1, clip=1.0, warmup=4),
            dict(name="all, float scales", loss="kl+ce", scales=1, final=1, half=0, lr=0.01, decay=0, clip=0.5, warmup=5),
            dict(name="all, half scales", loss="kl", scales=1, final=1, half=1, lr=0.003, decay=0, clip=0.2, warmup=0),
            dict(name="all, relative steps", loss="kl", scales=1, final=1, half=0, relative=1, lr=0.02, decay=0.1, clip=0.3, warmup=4)]
    for r in runs:
        st = Student(model, codes, bool(r["scales"]), bool(r["half"]), bool(r.get("relative")))
        blocks, final = start_order(st)
        norms = blocks + (final if r["final"] else [])
        groups = [dict(params=norms, weight_decay=r["decay"])]
        if r["scales"]:
            groups.append(dict(params=st.scales, weight_decay=0))
        opt = torch.optim.AdamW(groups, lr=r["lr"], betas=(0.9, 0.999), eps=1e-8)
        steps, batch, seq, seed = 20, 3, 9, 11
        sched = torch.optim.lr_scheduler.LambdaLR(
            opt, lambda s: (min(1, (s + 1) / r["warmup"]) if r["warmup"] else 1) * 0.5 * (1 + math.cos(math.pi * s / steps)))
        kls, ces = [], []
        for step in range(steps):
            _, ids = windows(seed, step, batch, seq)
            loss, k, c = loss_of(st, model, ids, 1, 1 if "ce" in r["loss"] else 0)
            kls.append(k.item())
            ces.append(c.item())
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(norms + st.scales, r["clip"])
            opt.step()
            sched.step()
        with torch.no_grad():
            gains = st.gains()
            values = [g for n, g in gains.items() if n != "model.norm.weight"] + [gains["model.norm.weight"]] * r["final"]
            hold = []
            for x in all_ids[n_train:]:
                p = torch.log_softmax(model(x[None]).logits[0, :-1], -1)
                q = torch.log_softmax(st.logits(x[None])[0, :-1], -1)
                hold.append((p.exp() * (p - q)).sum(-1).mean().item())
        out["runs"].append({**r, "steps": steps, "batch": batch, "seq": seq, "seed": seed, "kl": short(kls), "ce": short(ces),
                            "holdout": hold, "values": short(torch.cat([p.flatten() for p in values + st.scales]))})
        print(r["name"], kls[0], kls[-1], hold)
    with open(os.path.join(here, "scope.json"), "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


main()
