"""How far each changed number moved, beside how far it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.judging.comparison import Change
from reports.charts.canvas import BAD, INK, LINE, SERIES, Chart, canvas, finish
from reports.text import percent, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.judging.comparison import Compared

MOST = 30  # lines that are drawn
ROW = 22
LETTERS = 64  # of a name, for which the margin has room; the table has all of it


def change(lines: Sequence[Compared]) -> Chart | None:
    """One row for each, the worst on top; the grey bar is what is allowed. None without lines."""
    told = [line for line in lines if line.worse is not None and line.tolerance is not None]
    shown = told[:MOST]
    if not shown:
        return None
    drawn = canvas("change", 940, 60 + ROW * len(shown), (400, 40, 20, 4))
    axes = drawn.axes()
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for row, line in enumerate(shown):
        better, allowed = -100 * (line.worse or 0), 100 * (line.tolerance or 0)
        axes.barh(row, 2 * allowed, left=-allowed, height=0.5, color=LINE)
        worse = line.change is Change.REGRESSED
        colour, marker = (BAD, "v") if worse else (SERIES[2], "^")
        axes.scatter([better], [row], marker=marker, c=colour, s=48, zorder=3)
    axes.axvline(0, color=INK, lw=1)
    names = [visible(f"{line.where}", 200) for line in shown]
    short = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names]
    axes.set_yticks(range(len(shown)), short)
    axes.set_xlabel("% better (right) or worse (left); grey: allowed")
    left = len(told) - len(shown)
    more = f" {left} further ones are in the table." if left else ""
    about = "; ".join(f"{line.where}: worse by {percent(line.worse)}" for line in shown[:5])
    return finish(drawn, "What moved, and how far it may", f"{about}.{more}")
