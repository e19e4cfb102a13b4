"""How much memory was left free, against what was planned to be.

vLLM takes `utilisation` of a GPU's memory for everything it knows of; the rest is planned headroom,
for graphs beyond their estimate, late allocations, and others. Judged by NVML's `free`, which means
the same in both of its memory interfaces and counts every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.gpus.probe import Observed, Unobservable

if TYPE_CHECKING:
    from acceptance.gpus.telemetry import Span, Telemetry


@dataclass(frozen=True, slots=True)
class Headroom:
    """Of one GPU in one span, bytes. planned: (1 - utilisation) x total; None where utilisation is
    not known. least: the smallest free memory at any reading."""

    uuid: str
    total: int
    planned: int | None
    least: int

    @property
    def share(self) -> float:
        """Of the GPU's memory that was never taken."""
        return self.least / self.total

    @property
    def overrun(self) -> int | None:
        """How much of the planned headroom was used up; negative where more was free."""
        return None if self.planned is None else self.planned - self.least


def headrooms(
    telemetry: Telemetry, span: Span, utilisation: float | None
) -> dict[str, Observed[Headroom]]:
    """By UUID. Unobservable where a GPU never answered in the span."""
    found: dict[str, Observed[Headroom]] = {}
    for uuid in telemetry.gpus:
        least = telemetry.least_free(uuid, span)
        total = telemetry.total.get(uuid)
        if isinstance(least, Unobservable):
            found[uuid] = least
        elif total is None:
            found[uuid] = Unobservable(f"the memory of {uuid} was not told")
        else:
            planned = None if utilisation is None else round((1 - utilisation) * total)
            found[uuid] = Headroom(uuid, total, planned, least)
    return found


def growth(telemetry: Telemetry, ready: float, end: float) -> dict[str, Observed[int]]:
    """Bytes by which each GPU has less free at `end` than at `ready`, by UUID.

    Kept memory grows once, when buffers and kernels are first used, and then no more; a leak goes
    on for as long as there are requests.
    """
    found: dict[str, Observed[int]] = {}
    for uuid in telemetry.gpus:
        before, after = telemetry.free_at(uuid, ready), telemetry.free_at(uuid, end)
        if isinstance(before, Unobservable):
            found[uuid] = before
        elif isinstance(after, Unobservable):
            found[uuid] = after
        else:
            found[uuid] = before - after
    return found


def imbalance(found: dict[str, Observed[Headroom]]) -> Observed[int]:
    """Bytes between the GPU with the most and the one with the least headroom."""
    least = []
    for answer in found.values():
        if isinstance(answer, Unobservable):
            return answer
        least.append(answer.least)
    return max(least) - min(least)
