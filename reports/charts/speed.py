"""Throughput against interactivity, and latencies by batch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from acceptance.judging.judgement import Outcome
from reports.charts.canvas import (
    BAD,
    DIM,
    INK,
    MARKERS,
    PAPER,
    SERIES,
    Chart,
    bare,
    canvas,
    finish,
    lines,
    scale,
)
from reports.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from reports.cells import CellView
    from reports.charts.canvas import Canvas

    Places = Mapping[tuple[str, int], float]  # where each workload's batch stands

LATENCIES = {
    "ttft": "Time to first token",
    "tpot": "Time per output token",
    "itl": "Inter-token latency",
}
STATISTICS = ("median", "mean", "p99")
DASHED = (0, (4, 3))
ENGINES = ("+", "x", "1", "2")


def places(cells: Sequence[CellView]) -> dict[str, int]:
    """The number of each deployment's colour and marker."""
    return {
        name: n % len(SERIES) for n, name in enumerate(dict.fromkeys(c.deployment for c in cells))
    }


def engines(cells: Sequence[CellView]) -> dict[str, str]:
    """The marker of each engine that published points come from."""
    named = dict.fromkeys(anchor.engine for cell in cells for anchor in cell.anchors)
    return {engine: ENGINES[n % len(ENGINES)] for n, engine in enumerate(named)}


def throughput(workload: str, cells: Sequence[CellView], place: Mapping[str, int]) -> Chart | None:
    """Output tokens per second and GPU, by tokens per second of one user. None without points."""
    points = [c for c in cells if c.throughput and c.interactivity]
    if not points:
        return None
    drawn = canvas(f"speed-{workload}", 400, 330, (46, 40, 10, 8))
    axes = drawn.axes()
    axes.set_xscale("log")
    axes.set_yscale("log")
    series = {
        name: sorted((c for c in points if c.deployment == name), key=lambda c: c.batch)
        for name in dict.fromkeys(c.deployment for c in points)
    }
    colours = [SERIES[place[name]] for name in series]
    roofs = [[c.roofline for c in mine if c.roofline] for mine in series.values()]
    lines(axes, roofs, colours, linestyles=[DASHED], linewidths=1)
    paths = [[_at(c) for c in mine] for mine in series.values()]
    lines(axes, paths, colours, alpha=0.7)
    _limits(axes, points, place)
    for name, mine in series.items():
        _points(drawn, axes, mine, place[name])
        for cell, side in ((mine[0], 1), (mine[-1], -1)) if len(mine) > 1 else ((mine[0], 1),):
            axes.annotate(
                str(cell.batch),
                _at(cell),
                xytext=(6 * side, 5),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                fontsize=9,
                color=DIM,
            )
    crossed = [c for c in points if c.outcome in (Outcome.FAIL, Outcome.INVALID)]
    if crossed:
        axes.scatter(*_xy(crossed), s=90, marker="x", c=BAD, lw=2, zorder=4)
    _anchors(drawn, axes, points)
    bare(axes)
    scale(axes, "x", "tokens per second of one user")
    scale(axes, "y", "output tokens per second and GPU")
    title = f"{workload}: throughput against interactivity"
    return finish(drawn, title, _about(points), caption=workload)


def _at(cell: CellView) -> tuple[float, float]:
    return cell.interactivity or 1, cell.throughput or 1


def _xy(cells: Sequence[CellView]) -> tuple[list[float], list[float]]:
    return [_at(c)[0] for c in cells], [_at(c)[1] for c in cells]


def _points(drawn: Canvas, axes: Axes, cells: Sequence[CellView], place: int) -> None:
    """Filled where limits hold, hollow where nothing gates it or it is short."""
    colour = SERIES[place]
    held = [c.outcome in (Outcome.PASS, Outcome.MARGINAL) for c in cells]
    told = [
        f"{c.deployment}, batch {c.batch}: {number(round(c.interactivity or 0, 2))} tok/s per "
        f"user, {number(round(c.throughput or 0, 1))} tok/s per GPU, "
        f"{c.outcome.replace('_', ' ').lower()}"
        for c in cells
    ]
    axes.scatter(
        *_xy(cells),
        s=42,
        marker=MARKERS[place],
        facecolors=[colour if yes else PAPER for yes in held],
        edgecolors=[colour] * len(cells),
        linewidths=[1.4] * len(cells),
        zorder=3,
        urls=[drawn.mark(f"#{c.slug}", name) for c, name in zip(cells, told, strict=True)],
    )


def _anchors(drawn: Canvas, axes: Axes, cells: Sequence[CellView]) -> None:
    """What others published of the same hardware, a marker for each engine."""
    anchors = list(dict.fromkeys(a for c in cells for a in c.anchors))
    for engine, marker in engines(cells).items():
        mine = [a for a in anchors if a.engine == engine]
        told = [
            f"InferenceX, {engine}, {a.layout}, batch {a.batch}: "
            f"{number(round(a.interactivity, 1))} tok/s per user, "
            f"{number(round(a.throughput, 1))} tok/s per GPU; not vLLM, advisory"
            for a in mine
        ]
        axes.scatter(
            [a.interactivity for a in mine],
            [a.throughput for a in mine],
            s=46,
            marker=marker,
            c=INK,
            lw=1.3,
            urls=[drawn.mark("", name) for name in told],
        )


def _limits(axes: Axes, cells: Sequence[CellView], place: Mapping[str, int]) -> None:
    """What a point's limits leave it: a box where both have two sides, as a calibrated baseline
    has, else a bar at the limit."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes, colours, floors, ceilings = [], [], [], []
    for cell in cells:
        low, high = (_per_gpu(side, cell) for side in _sides(cell, "output_throughput"))
        right, left = (1000 / t if t else None for t in _sides(cell, "tpot_median_ms"))
        if low and high and left and right:
            boxes.append(Rectangle((left, low), right - left, high - low))
            colours.append(SERIES[place[cell.deployment]])
            continue
        floors += [(cell.interactivity or 0, low)] if low else []
        ceilings += [(left, cell.throughput or 0)] if left else []
    if boxes:
        axes.add_collection(PatchCollection(boxes, facecolors=colours, alpha=0.22, lw=0))
    for marks, marker in ((floors, "_"), (ceilings, "|")):
        if marks:
            xs, ys = [x for x, _ in marks], [y for _, y in marks]
            axes.scatter(xs, ys, marker=marker, s=90, color=INK, lw=1.2)


def _per_gpu(value: float | None, cell: CellView) -> float | None:
    return None if value is None else value / cell.gpus


def _about(cells: Sequence[CellView]) -> str:
    told = []
    for name in dict.fromkeys(c.deployment for c in cells):
        mine = [c for c in cells if c.deployment == name]
        fastest = max(mine, key=lambda c: c.throughput or 0)
        nearest = max(mine, key=lambda c: c.interactivity or 0)
        told.append(
            f"{name}: up to {number(round(fastest.throughput or 0))} tok/s per GPU at batch "
            f"{fastest.batch}, up to {number(round(nearest.interactivity or 0, 1))} tok/s per user "
            f"at batch {nearest.batch}"
        )
    return ". ".join(told) + "."


def latency(name: str, cells: Sequence[CellView], place: Mapping[str, int]) -> Chart | None:
    """One latency by batch, the workloads side by side, with every limit drawn."""
    metric = _gated(name, cells)
    points = [c for c in cells if c.value(metric)]
    if not points:
        return None
    workloads = list(dict.fromkeys(c.workload for c in points))
    batches = sorted({c.batch for c in points})
    width = len(batches) + 1
    drawn = canvas(f"latency-{name}", 940, 250, (50, 40, 8, 6))
    axes = drawn.axes()
    axes.set_yscale("log")
    at = {
        (workload, batch): n * width + i
        for n, workload in enumerate(workloads)
        for i, batch in enumerate(batches)
    }
    points.sort(key=lambda c: at[c.workload, c.batch])
    _lines(axes, points, at, metric, place)
    for deployment in dict.fromkeys(c.deployment for c in points):
        _marks(drawn, axes, [c for c in points if c.deployment == deployment], at, metric, place)
    _bars(axes, points, at, metric, place)
    bare(axes)
    scale(axes, "y", "ms")
    below = axes.get_xaxis_transform()
    for (_, batch), x in at.items():
        axes.text(x, -0.03, str(batch), transform=below, ha="center", va="top", color=DIM)
    for n, workload in enumerate(workloads):
        middle = n * width + (len(batches) - 1) / 2
        word = f"batch, {workload}"
        axes.text(middle, -0.12, word, transform=below, ha="center", va="top", color=INK)
    statistic = metric.split("_")[1]
    title = f"{LATENCIES[name]}, {statistic}, by batch"
    limited = sum(_sides(c, metric) != (None, None) for c in points)
    about = f"{len(points)} cells; the limits of {limited} are short bars, the upper one thicker."
    return finish(drawn, title, about)


def _gated(name: str, cells: Sequence[CellView]) -> str:
    """The statistic that most cells have a limit for; the median where none has."""
    count: Counter[str] = Counter()
    for statistic in STATISTICS:
        metric = f"{name}_{statistic}_ms"
        count[metric] = sum(_sides(c, metric) != (None, None) for c in cells)
    return max(count, key=lambda metric: count[metric])


def _sides(cell: CellView, metric: str) -> tuple[float | None, float | None]:
    limit = cell.limit(metric)
    return (limit.lower, limit.upper) if limit is not None else (None, None)


def _lines(
    axes: Axes, cells: Sequence[CellView], at: Places, metric: str, place: Mapping[str, int]
) -> None:
    """One for each deployment in each workload."""
    paths: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cell in cells:
        spot = at[cell.workload, cell.batch], cell.value(metric) or 0
        paths.setdefault((cell.deployment, cell.workload), []).append(spot)
    colours = [SERIES[place[deployment]] for deployment, _ in paths]
    lines(axes, list(paths.values()), colours, alpha=0.7)


def _marks(
    drawn: Canvas,
    axes: Axes,
    cells: Sequence[CellView],
    at: Places,
    metric: str,
    place: Mapping[str, int],
) -> None:
    """The points of one deployment."""
    number_of = place[cells[0].deployment]
    values = [c.value(metric) or 0 for c in cells]
    urls = [
        drawn.mark(f"#{c.slug}", f"{c.deployment}, batch {c.batch}: {number(round(value, 2))} ms")
        for c, value in zip(cells, values, strict=True)
    ]
    xs = [at[c.workload, c.batch] for c in cells]
    look: Any = {"s": 26, "marker": MARKERS[number_of], "c": SERIES[number_of], "zorder": 3}
    axes.scatter(xs, values, urls=urls, **look)


def _bars(
    axes: Axes, cells: Sequence[CellView], at: Places, metric: str, place: Mapping[str, int]
) -> None:
    """Every limit, the upper one thicker."""
    for deployment in dict.fromkeys(c.deployment for c in cells):
        mine = [c for c in cells if c.deployment == deployment]
        for side, wide in ((0, 1.0), (1, 2.0)):
            limits = [(at[c.workload, c.batch], e) for c in mine if (e := _sides(c, metric)[side])]
            if limits:
                xs, ys = [x for x, _ in limits], [y for _, y in limits]
                colour = SERIES[place[deployment]]
                axes.scatter(xs, ys, marker="_", s=110, color=colour, lw=wide, zorder=2)
