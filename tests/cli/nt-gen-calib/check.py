# SPDX-License-Identifier: Apache-2.0
"""Recomputes what nt-gen-calib generated: the model in numpy (float64, no cache), Philox, the draw.
check.py MODEL_DIR STREAM.nts -> TAP-less lines "name value"; check.py --dump STREAM.nts -> the ids as JSON lines."""
import json
import struct
import sys

import msgpack
import numpy as np

VOCAB_ENDS = {"<|end|>", "<|end_of_turn|>"}


def read_stream(path):
    data = open(path, "rb").read()
    u = msgpack.Unpacker(raw=False, max_buffer_size=0)
    u.feed(data)
    items = [x for x in u if x is not None]
    header, records, i = items[1], [], 2
    while isinstance(items[i], list):
        _, _, kind, meta = items[i]
        assert kind == "Tokens" and meta["dtype"] == "I32" and meta["segs"] == 1
        records.append((meta, list(struct.unpack("<%di" % meta["shape"][0], items[i + 1]))))
        i += 3
    assert items[i]["status"] == "ok", items[i]
    return header, records


def philox(seed, stream, counter):
    m = 0xFFFFFFFF
    c = [counter & m, counter >> 32, stream & m, stream >> 32]
    k = [seed & m, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & m, (a >> 32) ^ c[3] ^ k[1], a & m]
        k = [(k[0] + 0x9E3779B9) & m, (k[1] + 0xBB67AE85) & m]
    return c[1] << 32 | c[0]


def load(d):
    conf = json.load(open(d + "/config.json"))
    raw = open(d + "/model.safetensors", "rb").read()
    n, = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8:8 + n])
    w = {}
    for name, h in head.items():
        a, b = h["data_offsets"]
        x = np.frombuffer(raw[8 + n + a:8 + n + b], "<u2").astype("<u4") << 16
        w[name] = x.view("<f4").astype(float).reshape(h["shape"])
    return conf, w


def rms(x, g, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * g


def rope(x, theta):  # [T, heads, E]
    T, _, E = x.shape
    f = theta ** (-np.arange(E // 2) * 2.0 / E)
    a = np.arange(T)[:, None, None] * f
    lo, hi = x[..., :E // 2], x[..., E // 2:]
    return np.concatenate([lo * np.cos(a) - hi * np.sin(a), hi * np.cos(a) + lo * np.sin(a)], -1)


def logits(conf, w, ids):
    H, G, E = conf["num_attention_heads"], conf["num_key_value_heads"], conf["head_dim"]
    eps, theta, T = conf["rms_norm_eps"], conf["rope_theta"], len(ids)
    x = w["model.embed_tokens.weight"][ids]
    for i in range(conf["num_hidden_layers"]):
        p = "model.layers.%d." % i
        lin = lambda name, v: v @ w[p + name + ".weight"].T
        h = rms(x, w[p + "input_layernorm.weight"], eps)
        q = rope(lin("self_attn.q_proj", h).reshape(T, H, E), theta)
        k = rope(lin("self_attn.k_proj", h).reshape(T, G, E), theta).repeat(H // G, 1)
        v = lin("self_attn.v_proj", h).reshape(T, G, E).repeat(H // G, 1)
        s = np.einsum("ihe,jhe->hij", q, k) / np.sqrt(E) + np.triu(np.full((T, T), -1e30), 1)
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        x = x + lin("self_attn.o_proj", np.einsum("hij,jhe->ihe", s, v).reshape(T, H * E))
        h = rms(x, w[p + "post_attention_layernorm.weight"], eps)
        g = lin("mlp.gate_proj", h)
        x = x + lin("mlp.down_proj", g / (1 + np.exp(-g)) * lin("mlp.up_proj", h))
    return rms(x, w["model.norm.weight"], eps) @ w["model.embed_tokens.weight"].T


def wrong(z, banned, greedy, pos, token, u, k, temperature):
    """Is the token not what the logits and the random number say? Near ties (1e-5) are forgiven."""
    z = z.copy()
    z[banned] = -np.inf
    if pos < greedy:
        return z[token] < z.max() - 1e-5
    order = np.argsort(-z, kind="stable")[:k or len(z)]
    p = np.exp((z[order] - z[order[0]]) / temperature)
    c = np.concatenate([[0], np.cumsum(p) / p.sum()])
    hit = np.nonzero(order == token)[0]
    return len(hit) == 0 or not c[hit[0]] - 1e-5 <= u <= c[hit[0] + 1] + 1e-5


def main(d, path):
    header, records = read_stream(path)
    par, seed = header["params"], header["seed"]
    conf, w = load(d)
    tok = json.load(open(d + "/tokenizer.json"))
    banned = [a["id"] for a in tok["added_tokens"] if a["content"] in VOCAB_ENDS]
    bad = starts = 0
    for i, (meta, ids) in enumerate(records):
        lead = "bos" in par
        assert meta["seq"] == i and len(ids) == par["T"] and ids[lead] == meta["start"] and (not lead or ids[0] == par["bos"])
        greedy = meta.get("greedy", par["greedy"]) + lead
        z = logits(conf, w, ids)
        for pos in range(1 + lead, par["T"]):
            u = (philox(seed, i, pos) >> 11) / 2.0 ** 53
            bad += wrong(z[pos - 1], banned, greedy, pos, ids[pos], u, par["top_k"], par["temperature"])
        draws = [philox(seed, i, (1 << 32) + n) * len(tok["model"]["vocab"]) >> 64 for n in range(300)]
        starts += ids[lead] not in draws if par["scheme"] == "norm-tweaking" else ids[lead] != draws[0]
    held = [m["seq"] for m, _ in records if m["split"] == "holdout"]
    print(json.dumps({"n": len(records), "wrong": int(bad), "wrong_starts": starts, "held": held, "params": par,
                      "ended": sum(t in banned for _, ids in records for t in ids[1:]),
                      "metas": [m for m, _ in records]}))


if __name__ == "__main__" and sys.argv[1] == "--dump":
    for _, ids in read_stream(sys.argv[2])[1]:
        print(json.dumps(ids))
elif __name__ == "__main__":
    main(*sys.argv[1:])
