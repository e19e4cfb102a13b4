"""Who else used a GPU while it was leased, by what the sampler saw once a second.

A process is somebody else's when its parents and its environment say so. In a container neither can
be looked at: there it is one that came after the server was ready, when vLLM starts no more of its
own. Memory that no listed process holds is somebody's whom NVML does not show from here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from acceptance.gpus.kv import GIB
from acceptance.gpus.lease import IDLE_TAKEN_WITH_RESERVE
from acceptance.gpus.probe import Observed, Unobservable
from acceptance.gpus.whose import Whose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.gpus.telemetry import Rest, Seen, Span, Telemetry

UNLISTED = GIB  # bytes by which memory of nobody may grow: what drivers keep for themselves varies


def others(telemetry: Telemetry, uuid: str, span: Span, ready: float | None) -> Observed[list[str]]:
    """For people: everybody else who was on the GPU in the span, as last seen. ready: when the
    server was, seconds since the epoch; None when it never was. Unobservable where NVML lists no
    process, not even the server's."""
    answer = telemetry.readings(uuid, "processes", span)
    if isinstance(answer, Unobservable):
        return answer
    readings = [line for line in telemetry.rest[uuid] if line.processes is not None]
    inside = [line for line in readings if span.holds(line.t)]
    if not any(line.processes for line in readings) and _in_use(telemetry, uuid, span):
        return Unobservable(f"processes on {uuid}: NVML lists none, not even the server's")
    found = {one.process.pid: one.told for one in _strangers(inside, readings, ready)}
    hidden = _hidden(inside, readings, ready)
    told = [f"{hidden / GIB:.1f} GiB more of no process that NVML shows"] if hidden else []
    return [*found.values(), *told]


def _strangers(inside: list[Rest], readings: list[Rest], ready: float | None) -> Iterator[Seen]:
    """Those of whom nothing is known count when they came late, and stayed for two readings: one
    that was just ending is told by neither."""
    early = {
        one.process.pid
        for reading in readings
        if ready is None or reading.t <= ready
        for one in reading.processes or ()
    }
    last: set[int] = set()
    for reading in inside:
        for one in reading.processes or ():
            stays = one.process.pid in last and one.process.pid not in early
            if one.whose is Whose.FOREIGN or (one.whose is Whose.UNKNOWN and stays):
                yield one
        last = {one.process.pid for one in reading.processes or ()}


def _hidden(inside: list[Rest], readings: list[Rest], ready: float | None) -> int:
    """Bytes, at most, by which memory of nobody grew beyond UNLISTED since the server was ready,
    and stayed for two readings: list and memory are not read at the same instant."""
    if ready is None:
        return 0
    before = [r.unlisted for r in readings if r.t <= ready and r.processes]
    late = [r.unlisted for r in inside if r.t > ready and r.processes]
    level = next((value for value in reversed(before) if value is not None), None)
    if level is None:
        return 0
    grown = [0 if value is None else value - level for value in late]
    stayed = max((min(pair) for pair in pairwise(grown)), default=0)
    return stayed if stayed > UNLISTED else 0


def _in_use(telemetry: Telemetry, uuid: str, span: Span) -> bool:
    """Whether somebody must be on the GPU, by the memory that is taken."""
    least, total = telemetry.least_free(uuid, span), telemetry.total.get(uuid)
    if isinstance(least, Unobservable) or total is None:
        return False
    return total - least > IDLE_TAKEN_WITH_RESERVE
