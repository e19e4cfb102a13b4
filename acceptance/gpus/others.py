"""Who else used a GPU while it was leased, by what the sampler saw once a second.

A process is somebody else's when its parents and its environment say so. In a container neither can
be looked at: there it is one that came after the server was ready, when vLLM starts no more of its
own. Memory that no listed process holds is somebody's whom NVML does not show from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from acceptance.gpus.kv import GIB
from acceptance.gpus.lease import IDLE_TAKEN_WITH_RESERVE
from acceptance.gpus.probe import ComputeProcess, Observed, Unobservable
from acceptance.gpus.whose import Whose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.gpus.telemetry import Span, Telemetry

UNLISTED = GIB  # bytes by which memory of nobody may grow: what drivers keep for themselves varies


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at one reading. told: for people."""

    process: ComputeProcess
    whose: Whose
    told: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU at one moment. unlisted: bytes taken that no listed process holds; None where a
    process does not tell its own."""

    moment: float
    seen: tuple[Seen, ...]
    unlisted: int | None


def others(telemetry: Telemetry, uuid: str, span: Span, ready: float | None) -> Observed[list[str]]:
    """For people: everybody else who was on the GPU in the span, as last seen. ready: when the
    server was, seconds since the epoch; None when it never was. Unobservable where NVML lists no
    process, not even the server's."""
    answer = telemetry.readings(uuid, "processes", span)
    if isinstance(answer, Unobservable):
        return answer
    readings = list(_readings(telemetry, uuid))
    inside = [reading for reading in readings if span.holds(reading.moment)]
    if not any(reading.seen for reading in readings) and _in_use(telemetry, uuid, span):
        return Unobservable(f"processes on {uuid}: NVML lists none, not even the server's")
    found = {one.process.pid: one.told for one in _strangers(inside, readings, ready)}
    hidden = _hidden(inside, readings, ready)
    told = [f"{hidden / GIB:.1f} GiB more of no process that NVML shows"] if hidden else []
    return [*found.values(), *told]


def _readings(telemetry: Telemetry, uuid: str) -> Iterator[Reading]:
    for line in telemetry.rest:
        if line["gpu"] == uuid and "processes" in line:
            seen = (
                Seen(ComputeProcess(pid, used), Whose(whose), told)
                for pid, used, whose, told in line["processes"]
            )
            yield Reading(line["t"], tuple(seen), line.get("unlisted"))


def _strangers(
    inside: list[Reading], readings: list[Reading], ready: float | None
) -> Iterator[Seen]:
    """Those of whom nothing is known count when they came late, and stayed for two readings: one
    that was just ending is told by neither."""
    early = {
        one.process.pid
        for reading in readings
        if ready is None or reading.moment <= ready
        for one in reading.seen
    }
    last: set[int] = set()
    for reading in inside:
        for one in reading.seen:
            stays = one.process.pid in last and one.process.pid not in early
            if one.whose is Whose.FOREIGN or (one.whose is Whose.UNKNOWN and stays):
                yield one
        last = {one.process.pid for one in reading.seen}


def _hidden(inside: list[Reading], readings: list[Reading], ready: float | None) -> int:
    """Bytes, at most, by which memory of nobody grew beyond UNLISTED since the server was ready,
    and stayed for two readings: list and memory are not read at the same instant."""
    if ready is None:
        return 0
    before = [r.unlisted for r in readings if r.moment <= ready and r.seen]
    late = [r.unlisted for r in inside if r.moment > ready and r.seen]
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
