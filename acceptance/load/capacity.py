"""Whether a cell's requests run all at once, or queue for KV cache and seats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.errors import ObservationError
from acceptance.judging.judgement import Frozen
from acceptance.serving.live import engine_caches
from acceptance.serving.metrics import scrape

if TYPE_CHECKING:
    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

RUNNING = "vllm:num_requests_running"
QUICK = 2.0  # seconds for a reading that must not hold up anything


class Capacity(Frozen):
    """kv_tokens: of each engine's cache, as the server tells. seats: max_num_seqs of each engine,
    None where the deployment leaves it to vLLM. fits: requests of the cell's full length that the
    server can run at once, spread evenly over its engines."""

    kv_tokens: dict[str, int]
    seats: int | None
    fits: int


def read_capacity(target: Target, cell: Cell) -> Capacity | None:
    """What the running server has room for; None where it does not tell. Never raises."""
    try:
        told = {name: cache.kv_tokens for name, cache in engine_caches(scrape(target)).items()}
    except ObservationError:
        return None
    known = {name: tokens for name, tokens in told.items() if tokens is not None}
    if not known or len(known) < len(told):
        return None
    seats = target.deployment.options.max_num_seqs
    each = min(known.values()) // (cell.isl + cell.osl)
    each = each if seats is None else min(each, seats)
    return Capacity(kv_tokens=known, seats=seats, fits=each * len(known))


def running_requests(target: Target) -> int | None:
    """Requests that the engines run now, all together; None when it cannot be read quickly."""
    try:
        return round(scrape(target, timeout=QUICK).sum(RUNNING))
    except ObservationError:
        return None
