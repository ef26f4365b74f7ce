# SPDX-License-Identifier: Apache-2.0
"""Directories that nt-pack wrote, read by the packages of their formats.
  layouts.py ct HF DIR          compressed-tensors' own decompressor gives the values of the float directory, its compressor
                                makes the very tensors of DIR of them
  layouts.py load HF DIR        transformers loads DIR; logits are those of HF up to half precision
  layouts.py mlx HF DIR         MLX dequantizes every linear to the values of the float directory
  layouts.py kquant MODEL.gguf STATS OURS.gguf THEIRS.gguf N
                                tr((W-Q)H(W-Q)') of the down projections: ours is below theirs in each of the first N layers"""
import json
import sys

sys.path.pop(0)  # neighbours of this file must not stand in for modules of the same name
import numpy as np


def parts(path):
    from safetensors.torch import load_file
    return load_file(path + "/model.safetensors")


def ct(hf, path):
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationConfig
    config = QuantizationConfig.model_validate(json.load(open(path + "/config.json"))["quantization_config"])
    got, want, n = parts(path), parts(hf), 0
    for group in config.config_groups.values():
        for name, x in want.items():
            base = name.removesuffix(".weight")
            if base + ".weight_packed" not in got or not (group.targets == ["Linear"] or base in group.targets):
                continue
            state = {k[len(base) + 1:]: v for k, v in got.items() if k.startswith(base + ".")}
            state["weight_scale"] = state["weight_scale"].float()
            w = PackedQuantizationCompressor.decompress(state, group)["weight"]
            assert (w == x).all(), name
            n += 1
    assert n == sum(k.endswith(".weight_packed") for k in got)
    print(n, "linears equal")


def load(hf, path):
    import torch
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig
    ids = torch.arange(1000, 1064)[None]
    config = json.load(open(path + "/config.json"))["quantization_config"]
    # Without dequantize, compressed-tensors 0.20 gives the empty model zero points that are not packed, which those that
    # its own compressor packs do not fit.
    packed_zeros = any(not g["weights"]["symmetric"] for g in config["config_groups"].values())
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if packed_zeros else {}
    a = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float16, **how)(ids).logits.float()
    b = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)(ids).logits
    error = ((a - b).abs().max() / b.abs().max()).item()
    assert error < 0.02, error
    print("largest difference", error)


def mlx(hf, path):
    import mlx.core as mx
    got, want, n = mx.load(path + "/model.safetensors"), parts(hf), 0
    config = json.load(open(path + "/config.json"))["quantization"]
    for name, x in want.items():
        base = name.removesuffix(".weight")
        if base + ".scales" not in got:
            continue
        c = config.get(base, config)
        w = mx.dequantize(got[name], got[base + ".scales"].astype(mx.float32), got[base + ".biases"].astype(mx.float32),
                          group_size=c["group_size"], bits=c["bits"])
        assert (np.array(w) == x.numpy()).all(), name
        n += 1
    print(n, "linears equal")


def hessians(path):
    """layer -> X'X of the down projection's input, from a stats stream."""
    import msgpack
    unpacker, out, current, data = msgpack.Unpacker(open(path, "rb"), raw=False, max_buffer_size=2**31), {}, None, b""
    for item in unpacker:
        if isinstance(item, list):
            current, data = item, b""
        elif isinstance(item, bytes):
            data += item
        elif isinstance(item, dict) and current is not None and "xxh3" in item and current[3].get("name", "").endswith("down.hessian"):
            half = np.frombuffer(data, "<f4")
            n = int(((8 * len(half) + 1) ** 0.5 - 1) / 2)
            h = np.zeros((n, n))
            h[np.tril_indices(n)] = half
            out[current[3]["layer"]] = h + h.T - np.diag(np.diag(h))
            current = None
    return out


def kquant(model, stats, ours, theirs, n):
    import gguf
    from gguf.quants import dequantize
    files = [{t.name: t for t in gguf.GGUFReader(p).tensors} for p in (model, ours, theirs)]
    totals, shares = np.zeros(3), []
    for layer, h in list(hessians(stats).items())[:int(n)]:
        tensors = [f[f"blk.{layer}.ffn_down.weight"] for f in files]
        assert tensors[1].tensor_type == tensors[2].tensor_type, (tensors[1].tensor_type, tensors[2].tensor_type)
        w, a, b = (dequantize(t.data, t.tensor_type).reshape(-1, len(h)).astype("f8") for t in tensors)
        e = [float(((x @ h) * x).sum()) for x in (w, w - a, w - b)]
        totals += e
        shares.append(e[1] / e[2])
    assert max(shares) < 1, shares
    print(f"{tensors[1].tensor_type.name}: error of the signal, ours {100 * totals[1] / totals[0]:.3f} %, "
          f"llama-quantize {100 * totals[2] / totals[0]:.3f} %")


{"ct": ct, "load": load, "mlx": mlx, "kquant": kquant}[sys.argv[1]](*sys.argv[2:])
