# SPDX-License-Identifier: Apache-2.0
"""Tiny models of the families that are built like Llama, and each key that changes what they compute, flipped once.
Sequences are longer than the windows; both spellings of a configuration occur."""
from rows import row

BASE = dict(vocab_size=43, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
            intermediate_size=40, max_position_embeddings=32)
GEMMA = dict(BASE, head_dim=10, pad_token_id=0)
PHI3 = dict(BASE, pad_token_id=0, original_max_position_embeddings=8)
SHORT, LONG = [1.0, 1.1, 1.3, 2.5], [1.0, 2.1, 4.3, 8.7]
FULL, SLIDING = "full_attention", "sliding_attention"
LOCAL = dict(rope_type="default", rope_theta=300.0)
SMOLLM3 = dict(BASE, pad_token_id=0)
COHERE = dict(BASE, pad_token_id=0, logit_scale=0.5)


def mistral(**keys):
    return row("mistral", "MistralForCausalLM", dict(BASE, **keys))


def qwen2(**keys):
    return row("qwen2", "Qwen2ForCausalLM", dict(BASE, **keys))


def qwen3(**keys):
    return row("qwen3", "Qwen3ForCausalLM", dict(BASE, head_dim=12, **keys))


def gemma(n, **keys):
    names = {1: ("gemma", "Gemma"), 2: ("gemma2", "Gemma2"), 3: ("gemma3_text", "Gemma3")}[n]
    return row(names[0], names[1] + "ForCausalLM", dict(GEMMA, **keys), offset=1)


def phi3(**keys):
    return row("phi3", "Phi3ForCausalLM", dict(PHI3, **keys))


def stablelm(**keys):
    return row("stablelm", "StableLmForCausalLM", dict(BASE, hidden_size=48, **keys))


def mixtral(**keys):
    return row("mixtral", "MixtralForCausalLM", dict(BASE, num_local_experts=5, **dict(dict(num_experts_per_tok=2), **keys)))


def moe(n, **keys):
    extra = dict(head_dim=16) if n == 3 else dict(shared_expert_intermediate_size=24)
    return row("qwen%d_moe" % n, "Qwen%dMoeForCausalLM" % n,
               dict(BASE, **dict(extra, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=16, **keys)))


def smollm3(**keys):
    return row("smollm3", "SmolLM3ForCausalLM", dict(SMOLLM3, **keys))


ROWS = {
    "llama-yarn": row("llama", "LlamaForCausalLM",
                      dict(BASE, rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8))),
    "llama-dynamic": row("llama", "LlamaForCausalLM",
                         dict(BASE, max_position_embeddings=8, rope_scaling=dict(type="dynamic", factor=2.0),
                              hidden_act="gelu", attention_bias=True, mlp_bias=True)),
    "llama-llama3": row("llama", "LlamaForCausalLM",
                        dict(BASE, dtype="float32", rms_norm_eps=1e-2, head_dim=12,
                             rope_parameters=dict(rope_type="llama3", rope_theta=5000.0, factor=4.0, low_freq_factor=1.0,
                                                  high_freq_factor=4.0, original_max_position_embeddings=8))),
    "llama-linear": row("llama", "LlamaForCausalLM",
                        dict(BASE, rope_scaling=dict(type="linear", factor=2.5), rope_theta=700.0, hidden_act="relu",
                             tie_word_embeddings=True)),
    "mistral": mistral(sliding_window=4),
    "mistral-full": mistral(sliding_window=None, head_dim=10, rope_theta=500.0, tie_word_embeddings=True),
    "qwen2": qwen2(use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen2-off": qwen2(use_sliding_window=False, sliding_window=4, max_window_layers=0, tie_word_embeddings=True),
    "qwen2-types": qwen2(use_sliding_window=True, sliding_window=4, layer_types=[SLIDING, FULL]),
    "qwen3": qwen3(),
    "qwen3-window": qwen3(attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=0,
                          rms_norm_eps=1e-3),
    "qwen3-types": qwen3(use_sliding_window=True, sliding_window=4, layer_types=[FULL, SLIDING]),
    "mixtral": mixtral(),
    "mixtral-one": mixtral(sliding_window=4, num_experts_per_tok=1, hidden_act="gelu", tie_word_embeddings=True),
    "qwen2-moe": moe(2),
    "qwen2-moe-window": moe(2, use_sliding_window=True, sliding_window=4, norm_topk_prob=True, qkv_bias=False,
                            num_hidden_layers=3),
    "qwen2-moe-mixed": moe(2, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3]),
    "qwen3-moe": moe(3, norm_topk_prob=True),
    "qwen3-moe-mixed": moe(3, num_hidden_layers=3, mlp_only_layers=[1], attention_bias=True, use_sliding_window=True,
                           sliding_window=4),
    "gemma": gemma(1, hidden_act="gelu"),
    "gemma-relu": gemma(1, hidden_act="relu", attention_bias=True, tie_word_embeddings=False),
    "gemma2": gemma(2, sliding_window=4, query_pre_attn_scalar=10, attn_logit_softcapping=3.0,
                    final_logit_softcapping=2.0, hidden_act="silu", hidden_activation="gelu_pytorch_tanh"),
    "gemma2-types": gemma(2, sliding_window=4, layer_types=[FULL, SLIDING], query_pre_attn_scalar=20, attn_logit_softcapping=None,
                          final_logit_softcapping=None, hidden_activation="relu"),
    "gemma3": gemma(3, sliding_window=4, sliding_window_pattern=2, rope_theta=5000.0, rope_local_base_freq=200.0,
                    rope_scaling=dict(rope_type="linear", factor=3.0), query_pre_attn_scalar=10),
    "gemma3-types": gemma(3, sliding_window=4, layer_types=[FULL, SLIDING], final_logit_softcapping=2.0,
                          query_pre_attn_scalar=20, attn_logit_softcapping=3.0,
                          rope_parameters={FULL: dict(rope_type="default", rope_theta=7000.0), SLIDING: LOCAL}),
    "gemma3-nested": row("gemma3", "Gemma3ForConditionalGeneration",
                         dict(text_config=dict(GEMMA, model_type="gemma3_text", sliding_window=4, sliding_window_pattern=2),
                              vision_config=dict(model_type="siglip_vision_model", hidden_size=8, num_hidden_layers=1,
                                                 num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4),
                              mm_tokens_per_image=4, boi_token_index=40, eoi_token_index=41, image_token_index=42),
                         offset=1, vocab=40, layers=2),
    "phi3": phi3(),
    "phi3-long": phi3(rope_scaling=dict(type="longrope", short_factor=SHORT, long_factor=LONG)),
    "phi3-short": phi3(original_max_position_embeddings=11, sliding_window=4, partial_rotary_factor=0.5,
                       rope_scaling=dict(type="longrope", short_factor=SHORT[:2], long_factor=LONG[:2])),
    "stablelm": stablelm(),
    "stablelm-parallel": stablelm(use_parallel_residual=True, qk_layernorm=True, use_qkv_bias=True,
                                  partial_rotary_factor=0.5, layer_norm_eps=1e-3),
    "olmo": row("olmo", "OlmoForCausalLM", dict(BASE, attention_bias=True)),
    "olmo-clip": row("olmo", "OlmoForCausalLM", dict(BASE, clip_qkv=0.4)),
    "olmo2": row("olmo2", "Olmo2ForCausalLM", BASE),
    "olmo2-bias": row("olmo2", "Olmo2ForCausalLM", dict(BASE, attention_bias=True, num_key_value_heads=3)),
    "smollm3": smollm3(no_rope_layer_interval=2),
    "smollm3-four": smollm3(num_hidden_layers=4),
    "smollm3-window": smollm3(no_rope_layers=[0, 1], use_sliding_window=True, sliding_window=4, attention_bias=True,
                              mlp_bias=True, tie_word_embeddings=False),
    "smollm3-types": smollm3(no_rope_layers=[1, 1], use_sliding_window=True, sliding_window=4, layer_types=[SLIDING, FULL]),
    "granite": row("granite", "GraniteForCausalLM",
                   dict(BASE, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2,
                        logits_scaling=0.5)),
    "granite-plain": row("granite", "GraniteForCausalLM", dict(BASE, attention_bias=True, mlp_bias=True)),
    "cohere": row("cohere", "CohereForCausalLM", COHERE),
    "cohere-qk": row("cohere", "CohereForCausalLM",
                     dict(COHERE, use_qk_norm=True, attention_bias=True, logit_scale=2.0, tie_word_embeddings=False)),
    "cohere2": row("cohere2", "Cohere2ForCausalLM", dict(COHERE, sliding_window=4, sliding_window_pattern=2)),
    "cohere2-types": row("cohere2", "Cohere2ForCausalLM",
                         dict(COHERE, sliding_window=4, layer_types=[FULL, SLIDING], attention_bias=True)),
}
