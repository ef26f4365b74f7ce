# SPDX-License-Identifier: Apache-2.0
"""Configurations with one key changed. keys.py DIR: directories and GGUF files there, and lines 'EXPECT PATH IDS TEXT' for each:
EXPECT is 'refused' (exit 65, the message matches TEXT) or 'same' (the logits of transformers for the model TEXT)."""
import json
import os
import sys

import families
import gguf

# model, key, a value that changes what some class computes, what the message names; values that change nothing
REFUSED = [
    ("llama-linear", "attn_logit_softcapping", 3.0, None), ("llama-linear", "final_logit_softcapping", 3.0, None),
    ("llama-linear", "embedding_multiplier", 2.0, 1.0), ("llama-linear", "residual_multiplier", 0.5, 1.0),
    ("llama-linear", "attention_multiplier", 0.5, None), ("llama-linear", "logits_scaling", 2.0, 1.0),
    ("llama-linear", "logit_scale", 0.5, None), ("llama-linear", "use_qk_norm", True, False), ("llama-linear", "qk_norm", True, False),
    ("llama-linear", "qk_layernorm", True, False), ("llama-linear", "num_experts", 4, 0), ("llama-linear", "num_local_experts", 4, 0),
    ("llama-linear", "query_pre_attn_scalar", 16, None), ("llama-linear", "use_parallel_residual", True, False),
    ("llama-linear", "parallel_attn", True, False), ("llama-linear", "clip_qkv", 1.0, None),
    ("llama-linear", "no_rope_layers", [1, 0], []), ("llama-linear", "scale_depth", 1.4, None), ("llama-linear", "scale_emb", 12, 1),
    ("llama-linear", "dim_model_base", 256, None), ("llama-linear", "alibi", True, False),
    ("llama-linear", "use_bidirectional_attention", True, False), ("llama-linear", "attention_chunk_size", 8, None),
    ("llama-linear", "position_embedding_type", "alibi", None), ("llama-linear", "kv_lora_rank", 16, None),
    ("llama-linear", "add_cross_attention", True, False), ("llama-linear", "is_encoder_decoder", True, False),
    ("llama-linear", "apply_residual_connection_post_layernorm", True, False),
    ("llama-linear", "scale_attn_by_inverse_layer_idx", True, False),
    ("llama-linear", "layer_types", ["full_attention", "sliding_attention"], ["full_attention"] * 2),
    ("llama-linear", "quantization_config", {"quant_method": "vptq"}, None),
    ("llama-linear", "rope_scaling", {"rope_type": "spiral", "factor": 2.0}, {"rope_type": "linear", "factor": 2.5}),
    ("llama-linear", "hidden_act", "snake", "relu"), ("llama-linear", "tie_word_embeddings", "yes", True),
    ("llama-linear", "num_attention_heads", 2.5, 3), ("llama-linear", "num_key_value_heads", 2, 1),
    ("gpt2", "add_cross_attention", True, False), ("gpt2", "scale_attn_weights", 1, True),
    ("gpt2", "reorder_and_upcast_attn", None, True),  # the same numbers
    ("gemma2", "use_bidirectional_attention", True, False), ("gemma2", "layer_types", ["chunked_attention"] * 2, None),
    ("gemma2", "sliding_window", None, 4), ("gptj", "rotary_dim", 9, 4),
    ("qwen2-off", "layer_types", ["sliding_attention"] * 2, ["full_attention"] * 2), ("cohere2", "layer_types", ["full_attention"], None),
    ("smollm3", "no_rope_layers", [1], [1, 0]), ("falcon-7b", "num_ln_in_parallel_attn", 2, 1),
    ("falcon-40b", "parallel_attn", False, True), ("falcon-40b", "num_kv_heads", 3, 2), ("phi", "kv_lora_rank", 8, None),
    # the usual names, which these classes do not look at
    ("gpt-neox", "partial_rotary_factor", None, 0.5), ("gpt-neox", "rope_theta", None, 50.0), ("qwen2-moe", "num_local_experts", None, 3),
    ("qwen2-off", "sliding_window", None, 0),  # and use_sliding_window false: as Qwen2-MoE's class writes it
]
CHATGLM = [("rmsnorm", False, True), ("post_layer_norm", False, True), ("original_rope", False, True), ("multi_query_group_num", 4, 2)]
GGUF = [("qwen2-off", "expert_count", 4), ("stablelm", "attention.sliding_window", 4), ("qwen2-off", "logit_scale", 2.0),
        ("qwen2-off", "embedding_scale", 2.0), ("qwen2-off", "residual_scale", 0.5), ("qwen2-off", "attention.scale", 0.5),
        ("qwen2-off", "attn_logit_softcapping", 3.0), ("qwen2-off", "final_logit_softcapping", 3.0),
        ("qwen2-off", "use_parallel_residual", True), ("qwen2-off", "attention.clamp_kqv", 1.0),
        ("qwen2-off", "attention.max_alibi_bias", 8.0), ("bloom", "attention.max_alibi_bias", 4.0),
        ("qwen2-off", "attention.causal", False), ("qwen2-off", "interleave_moe_layer_step", 2),
        ("qwen2-off", "rope.scaling.type", "spiral"), ("qwen2-off", "rope.scale_linear", 2.0), ("qwen2-off", "attention.value_length", 4)]


def directory(at, source, config):
    os.makedirs(at)
    with open(os.path.join(at, "config.json"), "w") as f:
        json.dump(config, f)
    os.symlink(os.path.abspath(os.path.join(source, "model.safetensors")), os.path.join(at, "model.safetensors"))


def variants(at, source, config, key, bad, good, name):
    """One with the bad value if there is one, one with the good."""
    ids = os.path.join(os.path.dirname(source), name + ".ids")
    if bad is not None or (key == "sliding_window" and good):
        directory(at + ".bad", source, {**config, key: bad})
        print("refused", at + ".bad", ids, "rope_type" if key == "rope_scaling" else key)
    directory(at + ".good", source, {**config, key: good})
    print("same", at + ".good", ids, name)


def main(where):
    for i, (name, key, bad, good) in enumerate(REFUSED):
        source = os.path.join(where, name)
        if not os.path.exists(source):
            m = families.model(name)
            families.weights.write(m, source)
            with open(source + ".ids", "w") as f:
                json.dump(m["ids"], f)
        with open(os.path.join(source, "config.json")) as f:
            config = json.load(f)
        variants(os.path.join(where, "v%d" % i), source, config, key, bad, good, name)
    families.chatglm(os.path.join(where, "chatglm"))
    with open(os.path.join(where, "glm.ids"), "w") as f:
        json.dump(families.model("glm")["ids"], f)
    with open(os.path.join(where, "chatglm", "config.json")) as f:
        config = json.load(f)
    for i, (key, bad, good) in enumerate(CHATGLM):
        variants(os.path.join(where, "c%d" % i), os.path.join(where, "chatglm"), config, key, bad, good, "glm")
    for i, (name, key, bad) in enumerate(GGUF):
        at = os.path.join(where, "g%d.gguf" % i)
        gguf.write(at, families.model(name), {key: bad})
        print("refused", at, os.path.join(where, "glm.ids"), key.replace(".", "[.]"))
    for i, arch in enumerate(("bert", "t5", "nomic-bert", "mamba")):
        at = os.path.join(where, "a%d.gguf" % i)
        gguf.write(at, families.model("qwen2-off"), {}, arch)
        text = {"bert": "bert.is.an.encoder:", "nomic-bert": "nomic-bert.is.an.encoder:", "t5": "t5.is.an.encoder.with.a.decoder",
                "mamba": "mamba.is.not.known"}[arch]
        print("refused", at, os.path.join(where, "glm.ids"), text)


if __name__ == "__main__":
    main(sys.argv[1])
