"""vLLM plugin: expert parallelism on CPU computes the right experts.

vLLM 0.32's CPU fused MoE ignores the expert map: under expert parallelism it indexes a rank's
local experts by global ids, which reads past the end (wrong tokens, or a worker killed by signal
SIGSEGV). Here ids of other ranks' experts become a local id with weight zero, so that the sum
over ranks is right.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch


def register() -> None:
    """Entry point of `vllm.general_plugins`; vLLM calls it in each of its processes."""
    from vllm.model_executor.layers.fused_moe.experts import cpu_moe

    experts = cpu_moe.CPUUnquantizedExperts
    experts.apply = _mapped(experts.apply)


def _mapped(apply: Any) -> Any:
    signature = inspect.signature(apply)

    @functools.wraps(apply)
    def with_local_ids(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs).arguments
        expert_map = call["expert_map"]
        if expert_map is not None:
            ids = call["topk_ids"]
            local = expert_map[ids.long()]
            here = local >= 0
            call["topk_ids"] = torch.where(here, local, 0).to(ids.dtype).contiguous()
            call["topk_weights"] = (call["topk_weights"] * here).contiguous()
        return apply(**call)

    return with_local_ids
