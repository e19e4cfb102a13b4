"""The same network with DeepSeek-R1's head sizes, which GPUs' kernels are built for."""

from __future__ import annotations

import math
from typing import Any

import torch

R1_NOPE, R1_VALUE = 128, 128  # of a head; DeepSeek-R1's config.json
Tensors = dict[str, torch.Tensor]


def with_r1_heads(tensors: Tensors, config: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """The same network with R1's head sizes, 128 + 64 for queries and keys and 128 for values: its
    own values first, then zeros. Scores are divided by the root of a longer key, so queries grow
    by as much. vLLM 0.25.1's prefill on Hopper refuses values of 64 beside keys of 128."""
    heads, rope = config["num_attention_heads"], config["qk_rope_head_dim"]
    nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
    longer = math.sqrt((R1_NOPE + rope) / (nope + rope))
    made = dict(tensors)
    for layer in range(config["num_hidden_layers"]):
        place = f"model.layers.{layer}.self_attn."
        queries = tensors[f"{place}q_b_proj.weight"].float().unflatten(0, (heads, nope + rope))
        both = tensors[f"{place}kv_b_proj.weight"].float().unflatten(0, (heads, nope + value))
        out = tensors[f"{place}o_proj.weight"].float().unflatten(1, (heads, value))
        parts = {
            "q_b_proj": [
                _padded(queries[:, :nope], 1, R1_NOPE) * longer,
                queries[:, nope:] * longer,
            ],
            "kv_b_proj": [
                _padded(both[:, :nope], 1, R1_NOPE),
                _padded(both[:, nope:], 1, R1_VALUE),
            ],
        }
        for name, pieces in parts.items():
            made[f"{place}{name}.weight"] = torch.cat(pieces, 1).flatten(0, 1).bfloat16()
        made[f"{place}o_proj.weight"] = _padded(out, 2, R1_VALUE).flatten(1, 2).bfloat16()
    return made, {**config, "qk_nope_head_dim": R1_NOPE, "v_head_dim": R1_VALUE}


def _padded(tensor: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Zeros after what an axis has, up to a size."""
    shape = list(tensor.shape)
    shape[axis] = size - shape[axis]
    return torch.cat([tensor, torch.zeros(shape)], axis)
