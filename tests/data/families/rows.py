# SPDX-License-Identifier: Apache-2.0
"""Tiny models of the families that are not built like Llama. A row: config as it stands in config.json; offset: norms
hold gain - offset; dtype of the file; attention: the implementation to compare with; vocab, layers where config spells them otherwise."""


def row(model_type, hf_class, config, **options):
    return dict(config=dict(model_type=model_type, architectures=[hf_class], **config), **options)


GPT2 = dict(vocab_size=43, n_positions=16, n_embd=24, n_layer=2, n_head=3)
OPT = dict(vocab_size=43, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, ffn_dim=40,
           max_position_embeddings=16, word_embed_proj_dim=24, activation_function="relu")
BLOOM = dict(vocab_size=43, hidden_size=24, n_layer=2, n_head=3)
NEOX = dict(vocab_size=43, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=56,
            max_position_embeddings=16, rotary_pct=0.25, hidden_act="gelu")
GPTJ = dict(vocab_size=43, n_positions=16, n_embd=24, n_layer=2, n_head=3, rotary_dim=4)
PHI = dict(vocab_size=43, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
           max_position_embeddings=16, partial_rotary_factor=0.5)
FALCON = dict(vocab_size=43, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
GLM = dict(vocab_size=43, hidden_size=24, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
           head_dim=8, intermediate_size=40, max_position_embeddings=16, pad_token_id=0)

ROWS = {
    "gpt2": row("gpt2", "GPT2LMHeadModel", GPT2),
    "gpt2-scales": row("gpt2", "GPT2LMHeadModel",
                       dict(GPT2, scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False, n_inner=44,
                            activation_function="relu", tie_word_embeddings=False), dtype="F16"),
    "gpt2-keys": row("gpt2", "GPT2LMHeadModel", dict(GPT2, layer_norm_epsilon=1e-2, activation_function="gelu")),
    "opt": row("opt", "OPTForCausalLM", OPT),
    "opt-350m": row("opt", "OPTForCausalLM", dict(OPT, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "opt-plain": row("opt", "OPTForCausalLM",
                     dict(OPT, layer_norm_elementwise_affine=False, enable_bias=False, _remove_final_layer_norm=True,
                          activation_function="gelu"), dtype="BF16"),
    "bloom": row("bloom", "BloomForCausalLM", BLOOM),
    "bloom-post": row("bloom", "BloomForCausalLM", dict(BLOOM, apply_residual_connection_post_layernorm=True)),
    "bloom-keys": row("bloom", "BloomForCausalLM", dict(BLOOM, layer_norm_epsilon=1e-2, tie_word_embeddings=False)),
    "gpt-neox": row("gpt_neox", "GPTNeoXForCausalLM", NEOX),
    "gpt-neox-serial": row("gpt_neox", "GPTNeoXForCausalLM",
                           dict(NEOX, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast",
                                rotary_emb_base=5000, tie_word_embeddings=True)),
    "gpt-neox-keys": row("gpt_neox", "GPTNeoXForCausalLM",
                         dict(NEOX, rotary_pct=0.5, layer_norm_eps=1e-2, hidden_act="relu2")),
    "gptj": row("gptj", "GPTJForCausalLM", GPTJ),
    "gptj-keys": row("gptj", "GPTJForCausalLM",
                     dict(GPTJ, rotary_dim=8, n_inner=44, activation_function="quick_gelu", layer_norm_epsilon=1e-2)),
    "phi": row("phi", "PhiForCausalLM", PHI),
    "phi-qk": row("phi", "PhiForCausalLM", dict(PHI, qk_layernorm=True, num_attention_heads=4, hidden_size=32,
                                               num_key_value_heads=2, rope_theta=2000.0)),
    "phi-keys": row("phi", "PhiForCausalLM",
                    dict(PHI, partial_rotary_factor=0.25, layer_norm_eps=1e-2, hidden_act="relu")),
    "falcon-7b": row("falcon", "FalconForCausalLM",
                     dict(FALCON, multi_query=True, parallel_attn=True, bias=False, alibi=False)),
    "falcon-keys": row("falcon", "FalconForCausalLM",
                       dict(FALCON, multi_query=True, parallel_attn=True, bias=True, alibi=False, activation="relu",
                            layer_norm_epsilon=1e-2, rope_theta=300.0)),
    "falcon-40b": row("falcon", "FalconForCausalLM",
                      dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=False, alibi=False)),
    "falcon-11b": row("falcon", "FalconForCausalLM",
                      dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1,
                           ffn_hidden_size=40, tie_word_embeddings=False)),
    "falcon-rw": row("falcon", "FalconForCausalLM",
                     dict(FALCON, hidden_size=24, num_attention_heads=3, multi_query=False, parallel_attn=False,
                          bias=True, alibi=True),
                     attention="sdpa"),  # "eager" adds the ALiBi twice in transformers 5.23
    "glm": row("glm", "GlmForCausalLM", dict(GLM, attention_bias=True)),
    "glm-keys": row("glm", "GlmForCausalLM", dict(GLM, attention_bias=False, partial_rotary_factor=0.25, rms_norm_eps=1e-2,
                                                  rope_parameters=dict(rope_type="default", rope_theta=300.0, partial_rotary_factor=0.25))),
    "glm4": row("glm4", "Glm4ForCausalLM", dict(GLM, partial_rotary_factor=0.5)),
}
