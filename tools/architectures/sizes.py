"""How small: a limit for each size of a config by its name, and exceptions for a few models."""

from __future__ import annotations

from typing import Any

VOCAB, HIDDEN, HEADS, HEAD_DIM, LAYERS = 160, 64, 4, 16, 2

RULES: list[tuple[str, int]] = [
    (r"codebook_size", 64),
    (r"vocab_size.*|.*_vocab_size.*", VOCAB),
    (r"mamba_(n|num)_heads|linear_num_(key|value)_heads", 2 * HEADS),
    (r".*(kv|key_value|query_groups).*heads|n_head_kv", HEADS // 2),
    (r".*head_(dim|size).*|d_kv|kv_channels|.*d_head|dim_head|rotary_dim", HEAD_DIM),
    (r".*heads?|.*attention_heads.*", HEADS),
    (r".*(intermediate_size|ffn_dim|ffn_hidden_size|d_ff|mlp_dim|n_inner|ff_dim).*", HIDDEN),
    (r".*(hidden_sizes?|d_model|n_embd|embed_dim|hidden_dim|emb_dim|embedding_size)", HIDDEN),
    (r".*(projection_dim|lru_width|d_inner|input_dim|output_dim|proj_dim|dim|width)", HIDDEN),
    (r"upsample_groups|intra_bottleneck_size", HIDDEN),
    (r".*(experts_per_tok|topk|top_k|moe_k)", 2),
    (r"n_group|topk_group|num_expert_groups?", 1),
    (r".*num.*experts.*|n_routed_experts", 4),
    (r".*_rank", 16),
    (r"num_feat_extract_layers", 100),
    (r".*(layers|n_layer|num_blocks)|depth|num_hidden_layers_.*", LAYERS),
    (r".*state_size|.*d_state", 16),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", 1),
    (r"image_size|crop_size", 32),
    (r"patch_size", 8),
    (r"base_channels", 32),
    (r"max_source_positions", 64),
]
"""The most that a size may be.  The first pattern that is the whole name decides."""

_MOE = {"moe_intermediate_size": HIDDEN}
_MROPE = {"rope_theta": 1e4, "rope_type": "default", "mrope_section": [2, 3, 3]}
_HALF_MROPE = {**_MROPE, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
_ROPE = {"rope_theta": 1e4, "rope_type": "default"}

SPECIAL: dict[str, dict[str, Any]] = {
    "": {"intermediate_size": HIDDEN // 4},  # the adaptor of fun_asr_nano
    "apertus1p5": {"image_token_offset": 16, "audio_token_offset": 16 + 64},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 100},
    "chameleon": {"vocabulary_map": {"<image>": 150}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, **_MOE},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "emu3": {"vocabulary_map": {"<image>": 150}},
    "ernie4_5_vl_moe_text": {"rope_parameters": {**_MROPE, "mrope_section": [3, 3, 2]}},
    "esm": {"vocab_size": VOCAB, "pad_token_id": 1, "mask_token_id": 3},
    "falcon_h1": {"mamba_d_ssm": 2 * HIDDEN, "mamba_d_head": HEAD_DIM},
    "gemma4_assistant_text": {"hidden_size_per_layer_input": 0},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm46v_text": {"rope_parameters": _MROPE},
    "glm4v_moe_text": {"rope_parameters": _HALF_MROPE},
    "glm4v_text": {"rope_parameters": _MROPE},
    "glm5_next_text": {"num_key_value_heads": HEADS, "index_topk": 16},
    "glm_ocr_text": {"rope_parameters": _MROPE},
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1]],
        "attention_layers": ["global", "local"],
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hrm_text": {"num_layers_per_stack": 1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"zero_expert_num": 4, "head_dim": 16, "qk_head_dim": 32},
    "mamba2": {"num_heads": 2 * HEADS},
    "mistral4": {"head_dim": 2 * HEAD_DIM, "qk_head_dim": 2 * HEAD_DIM},
    "paddleocr_vl_text": {"rope_parameters": _MROPE},
    "qwen2_5_omni_text": {"rope_parameters": _MROPE},
    "qwen2_5_vl_text": {"rope_parameters": _MROPE},
    "qwen2_vl_text": {"rope_parameters": _MROPE},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": HEAD_DIM,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ngram_vocab_size_base": 100,
        "split_ngram_parts": 2,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 2 * HIDDEN,
        "attention_head_dim": 2 * HIDDEN // HEADS,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "n_mamba_heads": 2 * HEADS,
        "mamba_headdim": HEAD_DIM,
    },
}
"""By model type: sizes that must fit each other, and values that a default config leaves out."""
