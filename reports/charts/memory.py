"""Memory of each device over a run, one band above the other, with phases, cells and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.charts.canvas import BAD, DIM, LINE, SERIES, Chart, canvas, finish
from reports.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.memory import Span, Timeline, Used

BAND, GAP = 1.0, 0.22  # of the vertical axis
PHASES = ("importing", "launching", "loading", "compiling", "profiling", "capturing", "warming")
DASHED = (0, (4, 3))


def phase_colour(phase: str) -> str:
    """The colour of a phase, the same in every chart."""
    return SERIES[PHASES.index(phase) % len(SERIES) if phase in PHASES else -1]


def memory(timeline: Timeline, place: int) -> Chart:
    """A band for each device, as high as its memory; on top of them phases and cells."""
    rows = len(timeline.devices)
    drawn = canvas(f"memory-{place}", 940, 96 + 50 * rows, (96, 40, 120, 6))
    axes = drawn.axes()
    zero = min(device.times[0] for device in timeline.devices)
    if timeline.phases:
        zero = min(zero, timeline.phases[0].start)
    end = max(device.times[-1] for device in timeline.devices)
    axes.set_xlim(0, end - zero)
    axes.set_ylim(rows * (BAND + GAP), -1.15)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    _strips(axes, timeline, zero)
    labels = []
    for row, device in enumerate(timeline.devices):
        foot = row * (BAND + GAP) + BAND
        top = device.total or max(device.used) * 1.1 or 1.0
        heights = [foot - BAND * used / top for used in device.used]
        times = [moment - zero for moment in device.times]
        axes.fill_between(times, heights, foot, step="post", color=SERIES[0], alpha=0.35, lw=0)
        labels.append((foot - BAND / 2, _label(device)))
        if device.total:
            _limits(axes, timeline, device.total, foot, first=row == 0)
    axes.set_yticks([y for y, _ in labels], [label for _, label in labels])
    feet = [row * (BAND + GAP) + BAND for row in range(rows)]
    axes.hlines(feet, 0, end - zero, color=LINE, lw=1)
    axes.set_xlabel("seconds")
    what = "GPU memory in use" if timeline.gpus else "resident memory of the server's processes"
    return finish(drawn, f"{timeline.deployment}: {what}", _about(timeline))


def _label(device: Used) -> str:
    return f"{device.name}\n{number(round(max(device.used), 1))} GiB"


def _strips(axes: Axes, timeline: Timeline, zero: float) -> None:
    """Start-up phases, and below them the cells, alternately light and dark."""
    if timeline.phases:
        bars = [_bar(span, zero) for span in timeline.phases]
        colours = [phase_colour(span.name) for span in timeline.phases]
        axes.broken_barh(bars, (-1.05, 0.32), facecolors=colours, lw=0)
    if timeline.cells:
        bars = [_bar(span, zero) for span in timeline.cells]
        colours = [DIM if n % 2 else LINE for n in range(len(bars))]
        axes.broken_barh(bars, (-0.62, 0.32), facecolors=colours, lw=0)
    for word, y, there in (("phases", -0.89, timeline.phases), ("cells", -0.46, timeline.cells)):
        if there:
            axes.annotate(
                word, (1, y), xycoords=("axes fraction", "data"), xytext=(6, 0), size=9,
                textcoords="offset points", va="center", color=DIM,
            )  # fmt: skip


def _bar(span: Span, zero: float) -> tuple[float, float]:
    return span.start - zero, span.end - span.start


def _limits(axes: Axes, timeline: Timeline, total: float, foot: float, *, first: bool) -> None:
    """What was meant to stay free, and what must; told once, for all devices have the same."""
    rooms = ((timeline.planned, DIM, DASHED, "planned"), (timeline.floor, BAD, "-", "limit"))
    for room, colour, style, word in rooms:
        if room is None:
            continue
        y = foot - BAND * (1 - room / total)
        axes.axhline(y, color=colour, lw=1, ls=style)
        if first:
            below = 5 if word == "planned" else -3
            axes.annotate(
                f"{word}: {number(round(room, 2))} GiB free", (1, y), size=9, color=colour,
                xycoords=("axes fraction", "data"), xytext=(6, -below), va="center",
                textcoords="offset points",
            )  # fmt: skip


def _about(timeline: Timeline) -> str:
    told = []
    for device in timeline.devices:
        peak = max(device.used)
        free = f", {number(round(device.total - peak, 2))} free" if device.total else ""
        told.append(f"{device.name} at most {number(round(peak, 2))} GiB{free}")
    if timeline.floor is not None:
        told.append(f"at least {number(timeline.floor)} GiB must stay free")
    return "; ".join(told) + "."
