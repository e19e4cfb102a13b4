"""vLLM plugin: breaks one thing in DeepSeek's model, its cache or its sampler, as
ACCEPTANCE_DEFECT_INSIDE (JSON) says. In vLLM's own processes only; without the variable it does
nothing."""

from __future__ import annotations

import functools
import json
import os
from typing import Any

import torch

VARIABLE = "ACCEPTANCE_DEFECT_INSIDE"
SHIFT = 17  # places by which what is shuffled is moved
PAGE = 16  # tokens in a block of the CPU's latent cache


def register() -> None:
    """Entry point of `vllm.general_plugins`; vLLM calls it in each of its processes."""
    wrong = json.loads(os.environ.get(VARIABLE) or "{}")
    for name, value in wrong.items():
        BREAKS[name](value)


def _model() -> Any:
    from vllm.model_executor.models.deepseek_v2 import DeepseekV2ForCausalLM

    return DeepseekV2ForCausalLM


def _rank() -> int:
    from vllm.distributed import get_tensor_model_parallel_rank

    return int(get_tensor_model_parallel_rank())


def _loaded(change: Any) -> None:
    """change(model) once weights are loaded, before vLLM repacks them."""
    kind = _model()
    original = kind.load_weights

    @functools.wraps(original)
    def load_weights(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        with torch.no_grad():
            change(self)
        return found

    kind.load_weights = load_weights


def _logits(change: Any) -> None:
    """change(logits) of every step and of scored prompts."""
    kind = _model()
    original = kind.compute_logits

    @functools.wraps(original)
    def compute_logits(self: Any, hidden: Any, *args: Any, **kwargs: Any) -> Any:
        found = original(self, hidden, *args, **kwargs)
        return found if found is None else change(found)

    kind.compute_logits = compute_logits


def _hidden(change: Any) -> None:
    """change(hidden states, positions) of every step."""
    kind = _model()
    original = kind.forward

    @functools.wraps(original)
    def forward(self: Any, input_ids: Any, positions: Any, *args: Any, **kwargs: Any) -> Any:
        return change(original(self, input_ids, positions, *args, **kwargs), positions)

    kind.forward = forward


def _experts(model: Any) -> Any:
    """Parameters of routed experts of this rank: name and tensor, experts first."""
    for name, parameter in model.named_parameters():
        if name.endswith(("w13_weight", "w2_weight")):
            yield name, parameter


def expert_zero(number: int) -> None:
    def change(model: Any) -> None:
        for name, parameter in _experts(model):
            if name.endswith("w2_weight") and _rank() == 0:
                parameter.data[number].zero_()

    _loaded(change)


def experts_permuted(_: bool) -> None:
    def change(model: Any) -> None:
        for _, parameter in _experts(model):
            parameter.data.copy_(parameter.data.roll(1, 0))

    _loaded(change)


def combine_skipped(_: bool) -> None:
    def change(model: Any) -> None:
        for name, parameter in _experts(model):
            if name.endswith("w2_weight") and _rank() == 1:
                parameter.data.zero_()

    _loaded(change)


def rank_garbled(rank: int) -> None:
    def change(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if name.endswith("o_proj.weight") and _rank() == rank:
                noise = torch.Generator().manual_seed(1)
                drawn = torch.randn(parameter.shape, generator=noise)
                parameter.data.copy_(drawn * parameter.data.float().std())

    _loaded(change)


def rope_scale(factor: float) -> None:
    def change(model: Any) -> None:
        for module in model.modules():
            table = getattr(module, "cos_sin_cache", None)
            if torch.is_tensor(table):
                places = (torch.arange(len(table)) / factor).long()
                table.copy_(table[places].clone())

    _loaded(change)


def nan_logits(_: bool) -> None:
    _logits(lambda logits: logits.fill_(float("nan")))


def logit_scale(factor: float) -> None:
    _logits(lambda logits: logits * factor)


def wrong_after(steps: int) -> None:
    seen = 0

    def change(logits: Any) -> Any:
        nonlocal seen
        seen += 1
        return logits.roll(SHIFT, -1) if seen > steps else logits

    _logits(change)


def wrong_above(position: int) -> None:
    def change(hidden: Any, positions: Any) -> Any:
        late = positions >= position
        hidden[late] = hidden[late].roll(SHIFT, -1)
        return hidden

    _hidden(change)


def wrong_batch(most: int) -> None:
    def change(hidden: Any, positions: Any) -> Any:
        from vllm.forward_context import get_forward_context

        metadata = get_forward_context().attn_metadata
        if isinstance(metadata, dict) and metadata:
            requests = next(iter(metadata.values())).num_reqs
            return hidden.roll(SHIFT, -1) if requests > most else hidden
        return hidden

    _hidden(change)


def kv_alias(_: bool) -> None:
    """Every second block of the cache is written into the block before it."""
    from vllm.v1.attention.backends.mla.cpu_mla import CPUMLAImpl

    original = CPUMLAImpl.do_kv_cache_update

    @functools.wraps(original)
    def update(self: Any, kv: Any, k_pe: Any, cache: Any, slots: Any, *args: Any) -> Any:
        odd = (slots >= 0) & (slots // PAGE % 2 == 1)
        return original(self, kv, k_pe, cache, torch.where(odd, slots - PAGE, slots), *args)

    CPUMLAImpl.do_kv_cache_update = update


def temperature_ignored(_: bool) -> None:
    from vllm.v1.sample.sampler import Sampler

    def sample(self: Any, logits: Any, metadata: Any, *args: Any, **kwargs: Any) -> Any:
        return self.greedy_sample(logits), None

    Sampler.sample = sample


BREAKS: dict[str, Any] = {
    found.__name__: found
    for found in (
        *(expert_zero, experts_permuted, combine_skipped, rank_garbled, rope_scale, nan_logits),
        *(logit_scale, wrong_after, wrong_above, wrong_batch, kv_alias, temperature_ignored),
    )
}
