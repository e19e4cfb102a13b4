"""What the sampler process wrote of some GPUs, and what can be read from it.

A file of JSON objects, one a line, each with t (seconds since the epoch) and kind:

- begin: gpus (UUID -> total and reserved bytes), registered (UUID -> kinds of events);
- memory: free (bytes in the order of `gpus`, null where missed), samples (taken since the last
  line: what does not change is written once a second);
- rest: gpu, power_w, energy_j, temperature_c, gpu_percent, memory_percent, clock_reasons, rows
  (correctable, uncorrectable, pending, failed), ecc_uncorrected, thermal_ns, power_ns, processes
  (pid, bytes or null, whose.py's word, a text for people), unlisted (bytes taken by none of them);
- event: gpu, event, code;  missed: gpu, what, unobservable, error;  end: ticks, cpu_s (as in
  begin: CPU seconds of the sampler until then).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acceptance.errors import ObservationError
from acceptance.gpus.events import GpuEvent
from acceptance.gpus.probe import ClockReasons, Observed, Unobservable

if TYPE_CHECKING:
    from pathlib import Path

FOREVER = float("inf")
_BEGIN = b'"kind": "begin"'


@dataclass(frozen=True, slots=True)
class Span:
    """From one moment to another, both included; seconds since the epoch."""

    start: float = 0.0
    end: float = FOREVER

    def holds(self, moment: float) -> bool:
        return self.start <= moment <= self.end


@dataclass
class Telemetry:
    """Lines by kind. total: UUID -> bytes. missed: of whatever was not observed, the first time.
    ended: the line that the sampler leaves when it ends on purpose."""

    gpus: tuple[str, ...] = ()
    total: dict[str, int] = field(default_factory=dict)
    registered: dict[str, Observed[tuple[str, ...]]] = field(default_factory=dict)
    memory: list[tuple[float, tuple[int | None, ...]]] = field(default_factory=list)
    samples: int = 0
    rest: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[float, GpuEvent]] = field(default_factory=list)
    missed: list[tuple[float, str, str, Unobservable]] = field(default_factory=list)
    ended: dict[str, Any] | None = None

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

    def readings(self, uuid: str, name: str, span: Span) -> Observed[list[Any]]:
        """One field of the rest lines, in order; Unobservable when there is none."""
        found = [
            line[name]
            for line in self.rest
            if line["gpu"] == uuid and span.holds(line["t"]) and line.get(name) is not None
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


def _same(asked: str, field_name: str) -> bool:
    """missed lines name the question, rest lines the field."""
    fields = {"ecc": "ecc_uncorrected", "utilisation": "gpu_percent"}
    return fields.get(asked, asked) == field_name


def read_telemetry(path: Path) -> Telemetry:
    """The file as far as it is whole: a last line that is being written is passed over, and one
    that an earlier sampler, killed in its middle, left before the present one began. Raises
    ObservationError where anything else cannot be read."""
    found = Telemetry()
    broken: ObservationError | None = None
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                continue
            if (at := text.find(_BEGIN)) >= 0:  # where a line was torn, glued to it
                text, broken = text[text.rfind(b"{", 0, at) :], None
            try:
                _take(found, json.loads(text))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                broken = broken or ObservationError(
                    f"{path.name} line {number} cannot be read: {error!r}"[:300], log=path
                )
    if broken is not None:
        raise broken
    return found


def _take(found: Telemetry, line: dict[str, Any]) -> None:
    moment = line["t"]
    match line["kind"]:
        case "begin":
            found.ended = None  # of an earlier sampler
            found.gpus = tuple(line["gpus"])
            found.total = {uuid: told["total"] for uuid, told in line["gpus"].items() if told}
            found.registered = {
                uuid: Unobservable(kinds["unobservable"], kinds["error"])
                if isinstance(kinds, dict)
                else tuple(kinds)
                for uuid, kinds in line["registered"].items()
            }
        case "memory":
            found.memory.append((moment, tuple(line["free"])))
            found.samples += line["samples"]
        case "rest":
            found.rest.append(line)
        case "event":
            found.events.append((moment, GpuEvent(line["gpu"], line["event"], line["code"])))
        case "missed":
            why = Unobservable(line["unobservable"], line["error"])
            found.missed.append((moment, line["gpu"], line["what"], why))
        case "end":
            found.ended = line
