# SPDX-License-Identifier: Apache-2.0
"""Quantized checkpoints that other projects' own quantizers write, and what their own loaders make of a checkpoint.
  foreign.py model EMBEDDED DIR             a directory that transformers loads whole, of the embedded model
  foreign.py make TOOL MODEL TEXT OUT KIND...   OUT/KIND; each kind is quantized by TOOL with TEXT for calibration
  foreign.py nll TOOL MODEL IDS DIR...      a line for each DIR: its name and -log p of each sequence, computed in float32
                                            with the weights that TOOL's own loader gives
  foreign.py layout DIR                     nt-pack's --format and --dtype for the way back: of its configuration, of its scales
  foreign.py same SUFFIXES A B              tensors of the directory A whose names end in one of these are those of B
TOOL is gptqmodel, autoround, llmcompressor or mlx. A kind is a word and numbers: see KINDS below."""
import json
import os
import sys

sys.path.pop(0)  # neighbours of this file must not stand in for modules of the same name
os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", GPTQMODEL_CPU_WORKERS="2",
                  TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1", TORCH_COMPILE_DISABLE="1")
T = int(os.environ.get("FOREIGN_T", "256"))
N = int(os.environ.get("FOREIGN_N", "8"))
ITERS = int(os.environ.get("FOREIGN_ITERS", "2"))


def windows(model, text):
    from tokenizers import Tokenizer
    ids = Tokenizer.from_file(model + "/tokenizer.json").encode(open(text).read()).ids
    return [ids[i * T:(i + 1) * T] for i in range(N)]


# ---- each tool: kind -> a checkpoint ----

def gptqmodel(model, rows, out, kind):
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.quantization.config import AWQConfig, GPTQConfig
    config = {"w2": lambda: GPTQConfig(bits=2, group_size=64, sym=True),
              "w3": lambda: GPTQConfig(bits=3, group_size=128, sym=True),
              "w3-asym": lambda: GPTQConfig(bits=3, group_size=32, sym=False),
              "w4": lambda: GPTQConfig(bits=4, group_size=128, sym=True),
              "w4-asym": lambda: GPTQConfig(bits=4, group_size=64, sym=False),
              "w4-order": lambda: GPTQConfig(bits=4, group_size=32, sym=True, desc_act=True),
              "w4-v2": lambda: GPTQConfig(bits=4, group_size=32, sym=False, format="gptq_v2"),
              "w8": lambda: GPTQConfig(bits=8, group_size=-1, sym=True),
              "w3-planar": lambda: GPTQConfig(bits=3, group_size=32, sym=True, format="gptq_p"),
              "awq": lambda: AWQConfig(bits=4, group_size=64, sym=False, format="gemm")}[kind]()
    m = GPTQModel.load(model, config, device="cpu", backend=BACKEND.AUTO)
    m.quantize([{"input_ids": r, "attention_mask": [1] * T} for r in rows], batch_size=4)
    m.save(out)


def autoround(model, rows, out, kind):
    import torch
    from auto_round import AutoRound
    from transformers import AutoTokenizer
    bits, group, sym, form = {"w2": (2, 64, True, "auto_round"), "w3": (3, 64, True, "auto_round"),
                              "w4": (4, 64, True, "auto_round"), "w4-asym": (4, 32, False, "auto_round"),
                              "w4-gptq": (4, 64, True, "auto_gptq"), "w4-awq": (4, 64, False, "auto_awq"),
                              "w8": (8, 64, True, "auto_round"), "w4-ct": (4, 64, True, "llm_compressor")}[kind.removesuffix("-rtn")]
    data = [{"input_ids": torch.tensor([r]), "attention_mask": torch.ones(1, T, dtype=torch.long)} for r in rows]
    a = AutoRound(model, tokenizer=AutoTokenizer.from_pretrained(model), bits=bits, group_size=group, sym=sym,
                  iters=0 if kind.endswith("-rtn") else ITERS, nsamples=N, seqlen=T, batch_size=4, dataset=data,
                  device_map="cpu", enable_torch_compile=False)
    a.quantize_and_save(out, format=form)
    if not os.path.exists(out + "/config.json"):  # it makes a directory of its own in there
        os.rename(os.path.join(out, os.listdir(out)[0]), out + ".new")
        os.rmdir(out)
        os.rename(out + ".new", out)


def llmcompressor(model, rows, out, kind):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def weights(bits, group, sym=True, **more):
        q = QuantizationArgs(num_bits=bits, type="int", symmetric=sym, strategy="group" if group else "channel",
                             group_size=group or None, **more)
        return {"group_0": QuantizationScheme(targets=["Linear"], weights=q)}
    recipe = {"w4": lambda: GPTQModifier(ignore=["lm_head"], config_groups=weights(4, 64)),
              "w4-asym": lambda: GPTQModifier(ignore=["lm_head"], config_groups=weights(4, 32, False)),
              "w4-order": lambda: GPTQModifier(ignore=["lm_head"], config_groups=weights(4, 64, actorder="group")),
              "w3": lambda: GPTQModifier(ignore=["lm_head"], config_groups=weights(3, 64)),
              "w8": lambda: QuantizationModifier(ignore=["lm_head"], config_groups=weights(8, 0)),
              "w8a8": lambda: QuantizationModifier(ignore=["lm_head"], targets="Linear", scheme="W8A8"),
              "fp8": lambda: QuantizationModifier(ignore=["lm_head"], targets="Linear", scheme="FP8_DYNAMIC"),
              "mxfp4": lambda: QuantizationModifier(ignore=["lm_head"], targets="Linear", scheme="MXFP4A16"),
              "nvfp4": lambda: QuantizationModifier(ignore=["lm_head"], targets="Linear", scheme="NVFP4A16")}[kind]()
    m = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    data = Dataset.from_list([{"input_ids": r, "attention_mask": [1] * T} for r in rows])
    oneshot(model=m, tokenizer=AutoTokenizer.from_pretrained(model), dataset=data, recipe=recipe, max_seq_length=T,
            num_calibration_samples=N)
    m.save_pretrained(out, save_compressed=True)
    AutoTokenizer.from_pretrained(model).save_pretrained(out)


def mlx(model, rows, out, kind):
    from mlx_lm import convert
    w = kind.split("-")
    if w[0] in ("mxfp4", "nvfp4", "mxfp8"):
        convert(model, out, quantize=True, q_mode=w[0])
    elif w[0] == "mixed":
        convert(model, out, quantize=True, quant_predicate="mixed_3_6")
    else:
        convert(model, out, quantize=True, q_bits=int(w[0][1:]), q_group_size=int(w[1]), dtype=w[2] if w[2:] else "float16")


KINDS = {"gptqmodel": gptqmodel, "autoround": autoround, "llmcompressor": llmcompressor, "mlx": mlx}


# ---- what a tool's own loader makes of a directory ----

def unpack(m):
    """Every quantized linear's weight: what it gives for unit vectors."""
    import torch
    for name, x in list(m.named_modules()):
        if not hasattr(x, "qweight"):
            continue
        n = getattr(x, "in_features", None) or getattr(x, "infeatures")
        with torch.no_grad():
            if hasattr(x, "dequantize_weight") and hasattr(x, "scales"):
                x.scales.data = x.scales.data.float()  # a product of half floats would be rounded
                w = x.dequantize_weight().float().T
            else:
                w = x(torch.eye(n, dtype=torch.float16)).float().T
        y = torch.nn.Linear(*w.T.shape, bias=False)
        y.weight.data = w.contiguous()
        parent, _, leaf = name.rpartition(".")
        setattr(m.get_submodule(parent), leaf, y)


def torch_model(tool, path):
    import torch
    method = json.load(open(path + "/config.json"))["quantization_config"]["quant_method"]
    if method in ("gptq", "awq"):
        from gptqmodel import BACKEND, GPTQModel
        m = GPTQModel.load(path, device="cpu", dtype=torch.float16,
                           backend=BACKEND.AWQ_TORCH if method == "awq" else BACKEND.GPTQ_TORCH).model
    else:
        from transformers import AutoModelForCausalLM
        more = {}
        if tool == "llmcompressor":
            from transformers.utils.quantization_config import CompressedTensorsConfig
            more["quantization_config"] = CompressedTensorsConfig(run_compressed=False)
        m = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float16 if tool == "autoround" else torch.float32, device_map="cpu",
                                                 **more)
    unpack(m)
    return torch.nn.Module.float(m).eval()  # transformers forbids its own for quantized models


def torch_nll(tool, path, ids):
    import torch
    m, ids = torch_model(tool, path), torch.tensor(ids)
    with torch.no_grad():
        p = torch.log_softmax(m(input_ids=ids).logits[:, :-1].double(), -1)
    return (-p.gather(2, ids[:, 1:, None])).sum((1, 2)).tolist()


def mlx_nll(path, ids):
    import mlx.core as mx
    from mlx_lm import load
    m, ids = load(path)[0], mx.array(ids)
    m.set_dtype(mx.float32)
    p = m(ids)[:, :-1].astype(mx.float32)
    p = p - mx.logsumexp(p, -1, keepdims=True)
    return (-mx.take_along_axis(p, ids[:, 1:, None], -1)).sum((1, 2)).tolist()


def main():
    what, a = sys.argv[1], sys.argv[2:]
    if what == "model":
        os.makedirs(a[1])
        for f in ("config.json", "model.safetensors", "tokenizer.json"):
            open(os.path.join(a[1], f), "wb").write(open(os.path.join(a[0], f), "rb").read())
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
                  open(a[1] + "/tokenizer_config.json", "w"))
    elif what == "make":
        rows = windows(a[1], a[2])
        model, out = map(os.path.abspath, a[1:4:2])
        os.chdir(out)  # some leave logs where they are started
        for kind in a[4:]:
            try:
                KINDS[a[0]](model, rows, os.path.join(out, kind), kind)
            except Exception as e:
                print("MAKE FAILED", kind, type(e).__name__, str(e).replace("\n", " ")[:300], file=sys.stderr)
    elif what == "nll":
        for d in a[3:]:
            try:
                print(d, *(mlx_nll if a[0] == "mlx" else lambda *x: torch_nll(a[0], *x))(d, json.load(open(a[2]))), file=sys.__stdout__, flush=True)
            except Exception as e:
                import traceback
                traceback.print_exc()
                print(d, "FAILED", type(e).__name__, str(e).replace("\n", " ")[:300], flush=True)
    elif what == "layout":
        from safetensors import safe_open
        c = json.load(open(a[0] + "/config.json"))
        q = c.get("quantization_config", {})
        f = safe_open(a[0] + "/model.safetensors", "pt")
        scale = next(k for k in f.keys() if k.endswith(("scales", "weight_scale")))
        form = q.get("packing_format", q.get("quant_method", "mlx"))
        print("awq" if "awq" in form else form if "-" in form or form == "mlx" else "gptq",
              {"F16": "f16", "BF16": "bf16"}.get(f.get_slice(scale).get_dtype(), "f32"))
    elif what == "same":
        from safetensors import safe_open
        one, two = (safe_open(d + "/model.safetensors", "pt") for d in a[1:])
        names = [k for k in one.keys() if k.endswith(tuple(a[0].split(",")))]
        def values(f, k):  # scales in another float type have the same values
            t = f.get_tensor(k)
            return t.float() if t.is_floating_point() else t
        bad = [k for k in names if k not in two.keys() or not values(one, k).equal(values(two, k))]
        print(len(names), "tensors,", len(bad), "differ", *bad[:3])
        sys.exit(bool(bad) or not names)


main()
