"""How long each start took, by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.charts.canvas import INK, PAPER, Chart, canvas, finish
from reports.charts.memory import phase_colour
from reports.text import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.starts import Start

ROW = 40
_HATCHES = ("", "//", "", "..", "", "xx", "")


def startup(starts: Sequence[Start]) -> Chart | None:
    """One bar for each start; the longest fills the width. None when there was none."""
    shown = [start for start in starts if start.total > 0]
    if not shown:
        return None
    drawn = canvas("startup", 940, 40 + ROW * len(shown), (230, 34, 86, 4))
    axes = drawn.axes()
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    longest = max(start.total for start in shown)
    axes.set_xlim(0, longest)
    for row, start in enumerate(shown):
        left = 0.0
        for phase, seconds in start.segments:
            if seconds <= 0:
                continue
            axes.barh(
                row,
                seconds,
                left=left,
                height=0.62,
                color=phase_colour(phase),
                edgecolor=PAPER,
                lw=1,
            )
            if seconds / longest > 0.055:
                axes.text(
                    left + seconds / 2, row, phase, ha="center", va="center", size=9, color=PAPER
                )
            left += seconds
        axes.text(left, row, f"  {duration(start.total)}", va="center", color=INK)
    axes.set_yticks(range(len(shown)), [f"{start.name}\n{start.caches}" for start in shown])
    axes.set_xlabel("seconds")
    about = ". ".join(
        f"{start.name}, {start.caches}: {duration(start.total)}, of which "
        + ", ".join(f"{phase} {duration(s)}" for phase, s in start.segments if s > 0)
        for start in shown
    )
    return finish(drawn, "Start-up by phase", about + ".")
