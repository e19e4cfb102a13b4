"""Of the requests of one cell: percentiles, and a strip of bars for how they were spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.cells import CellView

BARS = 30
FEWEST = 4  # requests; fewer are told by their numbers
_HIGH, _WIDE = 36, 6  # of the drawing
LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "e2el": "End to end"}
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Spread:
    """One latency of a cell's requests, ms. path: bars as an SVG path in a box of width x 36;
    empty for a few requests. percentiles: nearest rank."""

    label: str
    count: int
    least: float
    most: float
    percentiles: tuple[float, ...]
    path: str
    width: int = BARS * _WIDE


def spreads(cell: CellView) -> list[Spread]:
    """Every latency that has a value for each request."""
    return [
        _spread(label, samples)
        for name, label in LATENCIES.items()
        if (samples := sorted(cell.samples(name)))
    ]


def _spread(label: str, ordered: Sequence[float]) -> Spread:
    last = len(ordered) - 1
    return Spread(
        label=label,
        count=len(ordered),
        least=ordered[0],
        most=ordered[last],
        percentiles=tuple(
            ordered[min(last, max(0, math.ceil(p / 100 * len(ordered)) - 1))] for p in PERCENTILES
        ),
        path=_bars(ordered) if len(ordered) >= FEWEST else "",
    )


def _bars(ordered: Sequence[float]) -> str:
    low, high = ordered[0], ordered[-1]
    if not high > low:
        return ""
    counts = [0] * BARS
    for value in ordered:
        counts[min(BARS - 1, int((value - low) / (high - low) * BARS))] += 1
    most = max(counts)
    return "".join(
        f"M{n * _WIDE} {_HIGH}v-{max(1, round(_HIGH * count / most))}h{_WIDE - 1}V{_HIGH}"
        for n, count in enumerate(counts)
        if count
    )
