"""config.json of the slice: DeepSeek-R1's own sizes with five layers.

The first three layers of R1 are dense and the others hold the experts, so five layers have both.
Sizes are those of deepseek-ai/DeepSeek-R1's config.json.
"""

from __future__ import annotations

from typing import Any

from acceptance.deployments.schema import Precision
from acceptance.errors import InputError

LAYERS = 5
VOCABULARY = 129280

SIZES: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": VOCABULARY,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": LAYERS,
    "num_nextn_predict_layers": 0,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-06,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "max_position_embeddings": 163840,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "beta_fast": 32,
        "beta_slow": 1,
        "original_max_position_embeddings": 4096,
    },
    "tie_word_embeddings": False,
    "use_cache": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
}

# generation_config.json, as DeepSeek-R1's: what a request without temperature is sampled with.
GENERATION: dict[str, Any] = {
    "bos_token_id": SIZES["bos_token_id"],
    "eos_token_id": SIZES["eos_token_id"],
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
}

# As the checkpoints have it: R1's own FP8 in blocks, and NVIDIA's NVFP4, which leaves attention,
# the head and the router in bf16 and stores the KV cache in FP8.
QUANTISATION: dict[Precision, dict[str, Any]] = {
    Precision.FP8: {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
    },
    Precision.FP4: {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "group_size": 16,
        "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        "ignore": ["lm_head", "*self_attn*", "*mlp.gate"],
    },
}


def slice_config(precision: Precision) -> dict[str, Any]:
    """config.json for a precision. Raises InputError for one that R1 is not deployed in."""
    if precision not in QUANTISATION:
        raise InputError(
            f"the slice has no {precision} checkpoint",
            hint=f"precision is one of {', '.join(QUANTISATION)}",
        )
    return {**SIZES, "quantization_config": QUANTISATION[precision]}
