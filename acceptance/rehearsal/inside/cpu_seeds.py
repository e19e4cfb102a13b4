"""vLLM plugin: a request with a seed may have its prompt read in parts.

What is sampled after a part of a prompt is thrown away, and vLLM 0.32 winds the request's generator
back by an offset. A CPU's generator has none: RuntimeError, and the engine is gone with everybody's
requests. Here such a generator is put back to where it was before it was asked.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator


def register() -> None:
    """Entry point of `vllm.general_plugins`; vLLM calls it in each of its processes."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    GPUModelRunner._sample = _putting_back(GPUModelRunner._sample)
    GPUModelRunner._bookkeeping_sync = _without_winding(GPUModelRunner._bookkeeping_sync)


def _putting_back(sample: Any) -> Any:
    @functools.wraps(sample)
    def sampling(runner: Any, *args: Any, **kwargs: Any) -> Any:
        before = [(one, one.get_state()) for one in _of_parts(runner).values()]
        sampled = sample(runner, *args, **kwargs)
        for generator, state in before:
            generator.set_state(state)
        return sampled

    return sampling


def _without_winding(book: Any) -> Any:
    @functools.wraps(book)
    def booking(runner: Any, *args: Any, **kwargs: Any) -> Any:
        parts, known = _of_parts(runner), runner.input_batch.generators
        for place in parts:
            del known[place]  # in place: what the sampler is told holds this dict itself
        try:
            return book(runner, *args, **kwargs)
        finally:
            known.update(parts)

    return booking


def _of_parts(runner: Any) -> dict[int, Generator]:
    """Generators, by place in the batch, of requests whose prompt is not read to its end yet."""
    batch = runner.input_batch
    unread = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0]
    return {int(n): batch.generators[int(n)] for n in unread if int(n) in batch.generators}
