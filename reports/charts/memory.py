"""Memory of each GPU over a run, with start-up phases, cells and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.charts.canvas import BAD, DIM, LINE, SERIES, Chart, canvas, finish, plain
from reports.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.memory import Span, Timeline, Used

ROW, STRIP = 66, 30
PHASES = ("importing", "launching", "loading", "compiling", "profiling", "capturing", "warming")


def phase_colour(phase: str) -> str:
    """The colour of a phase, the same in every chart."""
    return SERIES[PHASES.index(phase) % len(SERIES) if phase in PHASES else -1]


def memory(timeline: Timeline, number_: int) -> Chart:
    """One row for each device; above them phases and cells."""
    rows = len(timeline.devices)
    height = 46 + STRIP + 12 + rows * (ROW + 10)
    drawn = canvas(f"memory-{number_}", 940, height, (64, 40, 92, 6))
    zero = min(device.times[0] for device in timeline.devices)
    end = max(device.times[-1] for device in timeline.devices)
    if timeline.phases:
        zero = min(zero, timeline.phases[0].start)
    grid = drawn.figure.add_gridspec(rows + 1, 1, height_ratios=[STRIP, *[ROW] * rows], hspace=0.22)
    strip = drawn.figure.add_subplot(grid[0])
    strip.set_xlim(0, end - zero)
    _strip(strip, timeline, zero)
    for n, device in enumerate(timeline.devices, 1):
        axes = drawn.figure.add_subplot(grid[n])
        axes.set_xlim(0, end - zero)
        _row(axes, device, timeline, zero)
        if n < rows:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("seconds")
    what = "GPU memory" if timeline.gpus else "memory of the server's processes"
    return finish(drawn, f"{timeline.deployment}: {what} in use, GiB", _about(timeline))


def _strip(axes: Axes, timeline: Timeline, zero: float) -> None:
    axes.set_ylim(0, 2)
    axes.axis("off")
    for span in timeline.phases:
        colour = phase_colour(span.name)
        axes.broken_barh([_bar(span, zero)], (1.1, 0.8), facecolors=colour, lw=0)
    for n, span in enumerate(timeline.cells):
        axes.broken_barh(
            [_bar(span, zero)], (0.1, 0.8), facecolors=DIM, alpha=0.85 - 0.4 * (n % 2), lw=0
        )
    for text, y, there in (("start-up", 1.5, timeline.phases), ("cells", 0.5, timeline.cells)):
        if there:
            axes.text(
                -0.008,
                y / 2,
                text,
                transform=axes.transAxes,
                ha="right",
                va="center",
                color=DIM,
                size=10,
            )


def _bar(span: Span, zero: float) -> tuple[float, float]:
    return span.start - zero, span.end - span.start


def _row(axes: Axes, device: Used, timeline: Timeline, zero: float) -> None:
    times = [moment - zero for moment in device.times]
    axes.fill_between(times, device.used, step="post", color=SERIES[0], alpha=0.3, lw=0)
    axes.plot(times, device.used, drawstyle="steps-post", color=SERIES[0], lw=1.2)
    top = device.total or max(device.used) * 1.15 or 1.0
    axes.set_ylim(0, top * 1.02)
    axes.set_yticks([0, top] if device.total else [0, max(device.used)])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.set_ylabel(device.name, rotation=0, ha="right", va="center", labelpad=30)
    for place, (room, colour, style, word) in enumerate(
        ((timeline.planned, DIM, (0, (4, 3)), "planned"), (timeline.floor, BAD, "-", "limit"))
    ):
        if device.total and room is not None:
            axes.axhline(device.total - room, color=colour, lw=1, ls=style)
            at = device.total - room
            axes.annotate(
                f"{word} {plain(round(room, 2))} free",
                (1, at),
                xycoords=("axes fraction", "data"),
                xytext=(4, 3 - 9 * (1 - place)),
                textcoords="offset points",
                size=9,
                color=colour,
                va="center",
            )
    for span in timeline.cells[1::2]:
        axes.axvspan(*_edges(span, zero), color=LINE, alpha=0.25, lw=0, zorder=0)


def _edges(span: Span, zero: float) -> tuple[float, float]:
    return span.start - zero, span.end - zero


def _about(timeline: Timeline) -> str:
    told = []
    for device in timeline.devices:
        peak = max(device.used)
        free = f", {number(round(device.total - peak, 2))} GiB free" if device.total else ""
        told.append(f"{device.name}: at most {number(round(peak, 2))} GiB{free}")
    if timeline.floor is not None:
        told.append(f"at least {number(timeline.floor)} GiB must stay free")
    return "; ".join(told) + "."
