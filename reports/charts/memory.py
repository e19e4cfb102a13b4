"""Memory of each device over a run, one band above the other, with phases, cells and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.charts.sheet import BAD, DIM, LINE, Sheet, phase_colour
from reports.text import number

if TYPE_CHECKING:
    from reports.charts.canvas import Chart
    from reports.memory import Timeline

TOP, ROW, BAND, STRIP = 52, 50, 41, 13  # pixels: bands begin, each with its gap, without it
LEFT, RIGHT, WIDTH = 96, 820, 940
PHASES_AT, CELLS_AT = 8, 27


def memory(timeline: Timeline, place: int) -> Chart:
    """A band for each device, as high as its memory; on top of them phases and cells."""
    zero = min(device.times[0] for device in timeline.devices)
    if timeline.phases:
        zero = min(zero, timeline.phases[0].start)
    end = max(device.times[-1] for device in timeline.devices)
    foot = TOP + ROW * len(timeline.devices)
    drawn = Sheet(f"memory-{place}", WIDTH, foot + 36, LEFT, RIGHT, end - zero)
    _strips(drawn, timeline, zero)
    for row, device in enumerate(timeline.devices):
        floor = TOP + ROW * row + BAND
        top = device.total or max(device.used) * 1.1 or 1.0
        heights = [floor - BAND * used / top for used in device.used]
        drawn.area([moment - zero for moment in device.times], heights, floor, "var(--p0)")
        drawn.text(LEFT - 8, floor - BAND / 2 - 7, device.name, DIM, "end")
        most = f"{number(round(max(device.used), 1))} GiB"
        drawn.text(LEFT - 8, floor - BAND / 2 + 7, most, DIM, "end")
        if device.total:
            _limits(drawn, timeline, device.total, floor, first=row == 0)
        drawn.across(floor, LINE)
    drawn.axis(foot)
    what = "GPU memory in use" if timeline.gpus else "resident memory of the server's processes"
    return drawn.chart(f"{timeline.deployment}: {what}", _about(timeline))


def _strips(drawn: Sheet, timeline: Timeline, zero: float) -> None:
    """Start-up phases, and below them the cells, alternately light and dark."""
    for span in timeline.phases:
        colour = phase_colour(span.name)
        drawn.bar(span.start - zero, span.end - span.start, PHASES_AT, STRIP, colour)
    for n, span in enumerate(timeline.cells):
        colour = DIM if n % 2 else LINE
        drawn.bar(span.start - zero, span.end - span.start, CELLS_AT, STRIP, colour)
    for word, y, spans in (
        ("phases", PHASES_AT, timeline.phases),
        ("cells", CELLS_AT, timeline.cells),
    ):
        if spans:
            drawn.text(RIGHT + 6, y + STRIP / 2, word, DIM, size=9)


def _limits(drawn: Sheet, timeline: Timeline, total: float, foot: float, *, first: bool) -> None:
    """What was meant to stay free, and what must; told once, for all devices have the same."""
    for room, colour, word, below in (
        (timeline.planned, DIM, "planned", 5),
        (timeline.floor, BAD, "limit", -3),
    ):
        if room is None:
            continue
        y = foot - BAND * (1 - room / total)
        drawn.across(y, colour, dashed=word == "planned")
        if first:
            words = f"{word}: {number(round(room, 2))} GiB free"
            drawn.text(RIGHT + 6, y + below, words, colour, size=9)


def _about(timeline: Timeline) -> str:
    told = []
    for device in timeline.devices:
        peak = max(device.used)
        free = f", {number(round(device.total - peak, 2))} free" if device.total else ""
        told.append(f"{device.name} at most {number(round(peak, 2))} GiB{free}")
    if timeline.floor is not None:
        told.append(f"at least {number(timeline.floor)} GiB must stay free")
    return "; ".join(told) + "."
