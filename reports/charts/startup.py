"""How long each start took, by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.charts.sheet import DIM, INK, PAPER, Sheet, phase_colour
from reports.text import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.charts.canvas import Chart
    from reports.starts import Start

ROW, BAR = 40, 26  # pixels
LETTER = 5.4  # pixels at most, so that a name that has no room is left out


def startup(starts: Sequence[Start]) -> Chart | None:
    """One bar for each start; the longest fills the width. None when there was none."""
    shown = [start for start in starts if start.total > 0]
    if not shown:
        return None
    longest = max(start.total for start in shown)
    foot = 4 + ROW * len(shown)
    drawn = Sheet("startup", 940, foot + 36, left=230, right=854, seconds=longest)
    drawn.axis(foot, grid=4)
    for row, start in enumerate(shown):
        middle = 4 + ROW * (row + 0.5)
        drawn.text(222, middle - 7, start.name, DIM, "end")
        drawn.text(222, middle + 7, start.caches, DIM, "end")
        left = 0.0
        for phase, seconds in start.segments:
            if seconds <= 0:
                continue
            drawn.bar(left, seconds, middle - BAR / 2, BAR, phase_colour(phase))
            if drawn.x(seconds) - drawn.x(0) > LETTER * len(phase):
                drawn.text(drawn.x(left + seconds / 2), middle, phase, PAPER, "middle", size=9)
            left += seconds
        drawn.text(drawn.x(left) + 6, middle, duration(start.total), INK)
    about = ". ".join(
        f"{start.name}, {start.caches}: {duration(start.total)}, of which "
        + ", ".join(f"{phase} {duration(s)}" for phase, s in start.segments if s > 0)
        for start in shown
    )
    return drawn.chart("Start-up by phase", about + ".")
