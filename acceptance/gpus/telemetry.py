"""What the sampler process wrote of some GPUs, and what can be told from it.

A file of JSON objects, one a line, each with t (seconds since the epoch) and kind:

- begin: gpus (UUID -> total and reserved bytes), registered (UUID -> kinds of events);
- memory: free (bytes in the order of `gpus`, null where missed), samples (taken since the last
  line: what does not change is written once a second);
- rest: gpu, power_w, energy_j, temperature_c, gpu_percent, memory_percent, clock_reasons, rows
  (correctable, uncorrectable, pending, failed), ecc_uncorrected, thermal_ns, power_ns, processes
  (pid, bytes or null, whose.py's word, a text for people), unlisted (bytes taken by none of them);
- event: gpu, event, code;  missed: gpu, what, unobservable, error;  end: ticks, cpu_s (as in
  begin: CPU seconds of the sampler until then).

Each host has a file of its own; times are of the driver's clock in all of them. tail.py reads it.
Kept is what checks ask for, as small as it can be: a run goes on for hours.
"""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from acceptance.gpus.probe import ClockReasons, ComputeProcess, Observed, Unobservable
from acceptance.gpus.whose import Whose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from acceptance.gpus.events import GpuEvent

T = TypeVar("T")
Field = Literal["clock_reasons", "ecc_uncorrected", "rows", "thermal_ns", "processes", "unlisted"]
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Span:
    """From one moment to another, both included; seconds since the epoch."""

    start: float = 0.0
    end: float = FOREVER

    def holds(self, moment: float) -> bool:
        return self.start <= moment <= self.end


@dataclass(frozen=True, slots=True)
class Seen:
    """A process on a GPU at one reading. told: for people."""

    process: ComputeProcess
    whose: Whose
    told: str


@dataclass(frozen=True, slots=True)
class Rest:
    """A line of kind rest, as far as checks ask for it; None is what it does not tell. rows: as in
    the file. unlisted: bytes taken that no listed process holds, None too where one of them does
    not tell its own."""

    t: float
    clock_reasons: int | None = None
    ecc_uncorrected: int | None = None
    rows: tuple[int, ...] | None = None
    thermal_ns: int | None = None
    processes: tuple[Seen, ...] | None = None
    unlisted: int | None = None


@dataclass
class Telemetry:
    """Lines by kind. total: UUID -> bytes. rest: UUID -> lines. missed: of whatever was not
    observed, the first time. ended: the line that the sampler leaves when it ends on purpose."""

    gpus: tuple[str, ...] = ()
    total: dict[str, int] = field(default_factory=dict)
    registered: dict[str, Observed[tuple[str, ...]]] = field(default_factory=dict)
    memory: list[tuple[float, tuple[int | None, ...]]] = field(default_factory=list)
    samples: int = 0
    rest: dict[str, list[Rest]] = field(default_factory=dict)
    events: list[tuple[float, GpuEvent]] = field(default_factory=list)
    missed: list[tuple[float, str, str, Unobservable]] = field(default_factory=list)
    ended: dict[str, Any] | None = None

    def snapshot(self) -> Telemetry:
        """The same, which stays as it is when this one grows; lines are shared."""
        return replace(
            self,
            memory=list(self.memory),
            rest={uuid: list(lines) for uuid, lines in self.rest.items()},
            events=list(self.events),
            missed=list(self.missed),
        )

    def free(self, uuid: str, span: Span) -> list[int]:
        """Free bytes of a GPU, each time that they were written."""
        place = self.gpus.index(uuid)
        return [
            value
            for moment, free in self.memory
            if span.holds(moment) and (value := free[place]) is not None
        ]

    def least_free(self, uuid: str, span: Span) -> Observed[int]:
        """Bytes; Unobservable when the GPU never answered in that span."""
        found = self.free(uuid, span)
        return min(found) if found else self._why_missed(uuid, "memory", span)

    def free_at(self, uuid: str, moment: float) -> Observed[int]:
        """The last reading not after a moment."""
        found = self.free(uuid, Span(end=moment))
        return found[-1] if found else self._why_missed(uuid, "memory", Span(end=moment))

    def events_in(self, span: Span) -> list[GpuEvent]:
        return [event for moment, event in self.events if span.holds(moment)]

    def readings(self, uuid: str, name: Field, span: Span) -> Observed[list[Any]]:
        """One field of the rest lines, in order; Unobservable when there is none."""
        found = [
            value
            for line in self.rest.get(uuid, ())
            if span.holds(line.t) and (value := getattr(line, name)) is not None
        ]
        return found or self._why_missed(uuid, name, span)

    def throttled(self, uuid: str, span: Span) -> Observed[ClockReasons]:
        """Every fault of host or cooling that held the clocks down at any reading."""
        found = self.readings(uuid, "clock_reasons", span)
        if isinstance(found, Unobservable):
            return found
        together = ClockReasons(0)
        for value in found:
            together |= ClockReasons(value).throttled
        return together

    def capped(self, uuid: str, span: Span) -> Observed[float]:
        """Share of readings with the software power cap, which at full load is normal."""
        found = self.readings(uuid, "clock_reasons", span)
        if isinstance(found, Unobservable):
            return found
        return sum(bool(value & ClockReasons.SW_POWER_CAP) for value in found) / len(found)

    def _why_missed(self, uuid: str, what: str, span: Span) -> Unobservable:
        whys = [
            why
            for moment, gpu, name, why in self.missed
            if gpu == uuid and moment <= span.end and _same(name, what)
        ]
        return whys[-1] if whys else Unobservable(f"{what} of {uuid} was not sampled then")


def together(hosts: Sequence[Telemetry]) -> Telemetry:
    """Several hosts' telemetry as one: a line of one host tells nothing of another's GPUs."""
    if len(hosts) == 1:
        return hosts[0]
    return Telemetry(
        gpus=tuple(uuid for host in hosts for uuid in host.gpus),
        total=dict(ChainMap(*(host.total for host in hosts))),
        registered=dict(ChainMap(*(host.registered for host in hosts))),
        memory=sorted(_aligned(hosts), key=lambda line: line[0]),
        samples=sum(host.samples for host in hosts),
        rest=dict(ChainMap(*(host.rest for host in hosts))),
        events=sorted((one for host in hosts for one in host.events), key=lambda one: one[0]),
        missed=sorted((one for host in hosts for one in host.missed), key=lambda one: one[0]),
        ended=next((host.ended for host in hosts if host.ended is None), hosts[-1].ended),
    )


def _aligned(hosts: Sequence[Telemetry]) -> Iterator[tuple[float, tuple[int | None, ...]]]:
    """Every host's memory lines, in the order of all GPUs."""
    before, after = 0, sum(len(host.gpus) for host in hosts)
    for host in hosts:
        after -= len(host.gpus)
        for moment, free in host.memory:
            yield moment, ((None,) * before + free + (None,) * after)
        before += len(host.gpus)


def _same(asked: str, field_name: str) -> bool:
    """missed lines name the question, rest lines the field."""
    fields = {"ecc": "ecc_uncorrected", "utilisation": "gpu_percent"}
    return fields.get(asked, asked) == field_name


def rest_of(line: dict[str, Any], last: Rest | None = None) -> Rest:
    """From a line of the file. last: the one before of the same GPU, with which is shared what
    has not changed. Raises ValueError or TypeError."""
    rows: tuple[int, ...] | None = None
    users: tuple[Seen, ...] | None = None
    if (given := line.get("rows")) is not None:
        rows = _shared(tuple(given), last.rows if last else None)
    if (given := line.get("processes")) is not None:
        seen = (Seen(ComputeProcess(pid, used), Whose(w), told) for pid, used, w, told in given)
        users = _shared(tuple(seen), last.processes if last else None)
    return Rest(
        t=line["t"],
        clock_reasons=line.get("clock_reasons"),
        ecc_uncorrected=line.get("ecc_uncorrected"),
        rows=rows,
        thermal_ns=line.get("thermal_ns"),
        processes=users,
        unlisted=line.get("unlisted"),
    )


def _shared(new: T, old: T | None) -> T:
    """The old one where the two are equal."""
    return old if old is not None and old == new else new
