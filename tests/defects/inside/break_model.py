"""vLLM plugin: breaks one thing in DeepSeek's model, its cache or its sampler as it runs.

What is broken is read from the file that ACCEPTANCE_DEFECT_SWITCH names, before every step: JSON
such as {"expert_zero": 3}, or nothing at all for a healthy server. Without the variable the plugin
does nothing.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from pathlib import Path
from typing import Any

import torch

VARIABLE = "ACCEPTANCE_DEFECT_SWITCH"
SHIFT = 17  # places by which what is shuffled is moved
PAGE = 16  # tokens in a block of the CPU's latent cache
# What can be broken, with what its number means.
BREAKS = {
    "expert_zero": "the expert that gives zeros",
    "experts_permuted": "by how many places experts stand beside their own",
    "combine_skipped": "the rank whose experts do not reach the sum",
    "rank_garbled": "the rank whose attention output is noise",
    "rope_scale": "the factor by which positions are too small",
    "nan_logits": "1",
    "logit_scale": "the factor on logits",
    "wrong_after": "steps that are right",
    "wrong_above": "positions that are right",
    "wrong_batch": "requests in a step up to which it is right",
    "kv_alias": "1",
    "temperature_ignored": "1",
}


class Switch:
    """What is broken now. steps: since it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = ""
        self.wrong: dict[str, float] = {}
        self.steps = 0

    def look(self) -> None:
        """Once a step."""
        try:
            told = self.path.read_text(encoding="utf-8")
        except OSError:
            told = ""
        if told != self.told:
            self.told, self.steps = told, 0
            self.wrong = json.loads(told or "{}")
        self.steps += 1

    def get(self, name: str) -> float | None:
        return self.wrong.get(name)


def register() -> None:
    """Entry point of `vllm.general_plugins`; vLLM calls it in each of its processes."""
    path = os.environ.get(VARIABLE)
    if path:
        switch = Switch(Path(path))
        for put in (_into_model, _into_experts, _into_attention, _into_cache, _into_sampler):
            put(switch)


def _rank() -> int:
    from vllm.distributed import get_tensor_model_parallel_rank

    return int(get_tensor_model_parallel_rank())


def _into_model(switch: Switch) -> None:
    from vllm.model_executor.models.deepseek_v2 import DeepseekV2ForCausalLM as Model

    run, score = Model.forward, Model.compute_logits

    @functools.wraps(run)
    def forward(self: Any, input_ids: Any, positions: Any, *args: Any, **kwargs: Any) -> Any:
        switch.look()
        if factor := switch.get("rope_scale"):
            positions = (positions / factor).long()
        hidden = run(self, input_ids, positions, *args, **kwargs)
        above, most = switch.get("wrong_above"), switch.get("wrong_batch")
        if above is not None:
            late = positions >= above
            hidden[late] = hidden[late].roll(SHIFT, -1)
        if most is not None and _requests() > most:
            hidden = hidden.roll(SHIFT, -1)
        return hidden

    @functools.wraps(score)
    def compute_logits(self: Any, *args: Any, **kwargs: Any) -> Any:
        logits = score(self, *args, **kwargs)
        if logits is None:
            return None
        if switch.get("nan_logits"):
            logits.fill_(float("nan"))
        if factor := switch.get("logit_scale"):
            logits = logits * factor
        after = switch.get("wrong_after")
        return logits.roll(SHIFT, -1) if after is not None and switch.steps > after else logits

    Model.forward, Model.compute_logits = forward, compute_logits


def _requests() -> int:
    """Requests in this step."""
    from vllm.forward_context import get_forward_context

    metadata = get_forward_context().attn_metadata
    if not isinstance(metadata, dict) or not metadata:
        return 0
    return int(next(iter(metadata.values())).num_reqs)


def _into_experts(switch: Switch) -> None:
    """Routing is changed, which is what experts that are broken come to."""
    from vllm.model_executor.layers.fused_moe.experts import cpu_moe

    experts = cpu_moe.CPUUnquantizedExperts
    original = experts.apply
    signature = inspect.signature(original)

    @functools.wraps(original)
    def apply(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs).arguments
        ids, weights = call["topk_ids"], call["topk_weights"]
        if (number := switch.get("expert_zero")) is not None:
            call["topk_weights"] = torch.where(ids == int(number), 0.0, weights).to(weights.dtype)
        if places := switch.get("experts_permuted"):
            count = int(call["global_num_experts"])
            call["topk_ids"] = ((ids + int(places)) % count).to(ids.dtype).contiguous()
        if switch.get("combine_skipped") == _rank():
            call["topk_weights"] = torch.zeros_like(weights)
        return original(**call)

    experts.apply = apply


def _into_attention(switch: Switch) -> None:
    from vllm.model_executor.layers.linear import RowParallelLinear

    original = RowParallelLinear.forward
    noise = torch.Generator().manual_seed(1)

    @functools.wraps(original)
    def forward(self: Any, given: Any, *args: Any, **kwargs: Any) -> Any:
        if switch.get("rank_garbled") == _rank() and self.prefix.endswith("o_proj"):
            drawn = torch.randn(given.shape, generator=noise).to(given.dtype)
            given = drawn * given.float().std().to(given.dtype)
        return original(self, given, *args, **kwargs)

    RowParallelLinear.forward = forward


def _into_cache(switch: Switch) -> None:
    """Every second block of the cache is written into the block before it."""
    from vllm.v1.attention.backends.mla.cpu_mla import CPUMLAImpl

    original = CPUMLAImpl.do_kv_cache_update

    @functools.wraps(original)
    def update(self: Any, kv: Any, k_pe: Any, cache: Any, slots: Any, *args: Any) -> Any:
        if switch.get("kv_alias"):
            odd = (slots >= 0) & (slots // PAGE % 2 == 1)
            slots = torch.where(odd, slots - PAGE, slots)
        return original(self, kv, k_pe, cache, slots, *args)

    CPUMLAImpl.do_kv_cache_update = update


def _into_sampler(switch: Switch) -> None:
    from vllm.v1.sample.sampler import Sampler

    original = Sampler.sample

    @functools.wraps(original)
    def sample(self: Any, logits: Any, metadata: Any, *args: Any, **kwargs: Any) -> Any:
        if switch.get("temperature_ignored"):
            return self.greedy_sample(logits), None
        return original(self, logits, metadata, *args, **kwargs)

    Sampler.sample = sample
