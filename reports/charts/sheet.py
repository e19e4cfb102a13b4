"""A plain drawing along one axis of seconds, as SVG in the page's own colours.

For bars and areas, which need no library's scales: matplotlib took 60 ms and 190 kB for the memory
of eight GPUs.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reports.charts.canvas import Chart, frame

if TYPE_CHECKING:
    from collections.abc import Sequence

INK, DIM, LINE, PAPER, BAD = (
    "currentColor",
    "var(--dim)",
    "var(--line)",
    "var(--paper)",
    "var(--bad)",
)
PHASES = ("importing", "launching", "loading", "compiling", "profiling", "capturing", "warming")
_TICKS = 8  # at most


def phase_colour(phase: str) -> str:
    """The colour of a phase, the same in every chart; the last one for a phase that is unknown."""
    return f"var(--p{PHASES.index(phase) if phase in PHASES else 7})"


@dataclass
class Sheet:
    """A drawing of so many pixels; left, right: where its axis begins and ends. seconds: what the
    axis spans, from 0. name: unique in the page."""

    name: str
    width: float
    height: float
    left: float
    right: float
    seconds: float
    parts: list[str] = field(default_factory=list)

    def x(self, seconds: float) -> float:
        """Where a moment stands, pixels."""
        share = seconds / self.seconds if self.seconds > 0 else 0.0
        return self.left + share * (self.right - self.left)

    def bar(self, start: float, seconds: float, top: float, height: float, colour: str) -> None:
        """From a moment on, for so long, less a pixel that keeps it apart from the next."""
        x = self.x(start)
        width = max(self.x(start + seconds) - x - 1, 0.3)
        self.parts.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.2f}" height="{height:.1f}" '
            f'fill="{colour}"/>'
        )

    def area(self, times: Sequence[float], tops: Sequence[float], foot: float, colour: str) -> None:
        """Filled down to foot; each height holds until the next moment."""
        steps = "".join(
            f"H{self.x(time):.1f}V{top:.1f}" for time, top in zip(times, tops, strict=True)
        )
        path = f"M{self.x(times[0]):.1f} {foot:.1f}{steps}V{foot:.1f}Z"
        self.parts.append(f'<path d="{path}" fill="{colour}" fill-opacity="0.35"/>')

    def across(self, y: float, colour: str, *, dashed: bool = False) -> None:
        """A line over the whole axis."""
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<path d="M{self.left:.1f} {y:.1f}H{self.right:.1f}" stroke="{colour}"{dashes}/>'
        )

    def text(
        self, x: float, y: float, words: str, colour: str, anchor: str = "start", size: int = 11
    ) -> None:
        """Words whose middle is at the height y. anchor: start, middle or end of them is at x."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y + size * 0.36:.1f}" text-anchor="{anchor}" '
            f'font-size="{size}" fill="{colour}">{html.escape(words)}</text>'
        )

    def axis(self, foot: float, *, grid: float | None = None) -> None:
        """Seconds below foot. grid: from where lines go down to it; None for none."""
        for second in ticks(self.seconds):
            x = self.x(second)
            if grid is not None:
                path = f"M{x:.1f} {grid:.1f}V{foot:.1f}"
                self.parts.append(f'<path d="{path}" stroke="{LINE}" stroke-width="0.5"/>')
            self.text(x, foot + 11, f"{second:g}", DIM, "middle")
        self.text((self.left + self.right) / 2, foot + 27, "seconds", DIM, "middle")

    def chart(self, title: str, about: str) -> Chart:
        """The drawing as it stands in the page."""
        view = f"0 0 {self.width:g} {self.height:g}"
        svg = frame(self.name, view, "".join(self.parts), title, about)
        return Chart(title, about, svg, title)


def ticks(seconds: float) -> list[float]:
    """Round numbers from 0 on, not more than an axis has room for."""
    if seconds <= 0:
        return [0.0]
    raw = seconds / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= raw)
    return [n * step for n in range(int(seconds / step) + 1)]
