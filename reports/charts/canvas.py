"""A figure of matplotlib's, and what becomes of it: one small SVG that follows the page's colours.

matplotlib is given stand-in colours that the page's CSS replaces, so one drawing serves light, dark
and print. Text stays text. Every mark that stands for something carries its name, and a link where
there is something to read about it.
"""

from __future__ import annotations

import html
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from reports.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, DIM, LINE, PAPER, BAD, SOFT = (f"#0000{n:02x}" for n in range(1, 7))
SERIES = tuple(f"#0000{n:02x}" for n in range(16, 24))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STAND_INS = {
    INK: "currentColor",
    "#000000": "currentColor",
    DIM: "var(--dim)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    BAD: "var(--bad)",
    SOFT: "var(--soft)",
    **{colour: f"var(--p{number})" for number, colour in enumerate(SERIES)},
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "acceptance",  # ids are the same each time
    "font.family": ["sans-serif"],
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": DIM,
    "axes.labelsize": 11,
    "axes.titlesize": 12,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 1,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": DIM,
    "ytick.labelcolor": DIM,
    "xtick.bottom": False,
    "ytick.left": False,
    "path.simplify": True,
    "text.color": INK,
    "figure.facecolor": "none",
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Chart:
    """One drawing. svg: for the page as it is. about: what it shows, in a sentence. caption: its
    title where it stands under a heading that says the rest."""

    title: str
    about: str
    svg: str
    caption: str


@dataclass
class Canvas:
    """A figure that is being drawn. marks: link and name of each point, by its number."""

    name: str
    figure: Figure
    marks: list[tuple[str, str]] = field(default_factory=list)

    def axes(self, rows: int = 1, columns: int = 1, number: int = 1) -> Axes:
        """A place to draw in."""
        return self.figure.add_subplot(rows, columns, number)

    def mark(self, href: str, name: str) -> str:
        """The address that makes the next point a link with a name; href empty for a name alone."""
        self.marks.append((href, name))
        return f"mark:{len(self.marks) - 1}"


@contextmanager
def drawing() -> Iterator[None]:
    """While it lasts, what is drawn has the report's style. Raises ImportError where matplotlib
    is not installed."""
    import logging

    import matplotlib

    quiet = logging.getLogger("matplotlib.font_manager")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with matplotlib.rc_context(STYLE):
            yield
    finally:
        quiet.setLevel(level)


def canvas(name: str, width: float, height: float, margins: Sequence[float]) -> Canvas:
    """A figure of so many pixels. name: unique in the page. margins: left, bottom, right, top in
    pixels."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    left, bottom, right, top = margins
    figure.subplots_adjust(
        left=left / width, bottom=bottom / height, right=1 - right / width, top=1 - top / height
    )
    return Canvas(name, figure)


def finish(drawn: Canvas, title: str, about: str, caption: str = "") -> Chart:
    """The drawing as it stands in the page."""
    text = io.StringIO()
    drawn.figure.canvas.print_figure(text, format="svg", metadata={"Date": None})
    svg = _page_svg(text.getvalue(), drawn, title, about)
    return Chart(title, about, svg, caption or title)


def _page_svg(svg: str, drawn: Canvas, title: str, about: str) -> str:
    view = re.search(r'viewBox="([^"]+)"', svg)
    body = svg[svg.index("<g ") : svg.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r">\s+<", "><", body).strip()
    parts = re.split(r"(<[^>]+>)", body)  # text at even places, tags between
    parts[1::2] = _tags("\0".join(parts[1::2]), drawn.name).split("\0")
    body = re.sub(r'<a href="mark:(\d+)"[^>]*>', lambda m: _link(drawn, m[1]), "".join(parts))
    links = any(href for href, _ in drawn.marks)
    return frame(drawn.name, view[1] if view else "0 0 1 1", body, title, about, links=links)


def frame(name: str, view: str, body: str, title: str, about: str, *, links: bool = False) -> str:
    """What stands around every drawing: its size, and its name and sense for who cannot see it.
    links: whether anything in it can be followed, so that it is no mere picture."""
    role = "group" if links else "img"
    return (
        f'<svg class="chart" viewBox="{view}" role="{role}" '
        f'aria-labelledby="{name}-t {name}-d" preserveAspectRatio="xMidYMid meet">'
        f'<title id="{name}-t">{_safe(title)}</title><desc id="{name}-d">{_safe(about)}</desc>'
        f"{body}</svg>"
    )


def _tags(tags: str, name: str) -> str:
    """All tags of a drawing at once: short, in the page's colours, with ids of their own."""
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', tags))
    tags = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' * (m[1] in used), tags)
    tags = re.sub(r'(url\(#|xlink:href="#)', rf"\1{name}-", tags).replace("xlink:", "")
    tags = re.sub(r"font-size: ([\d.]+)px; font-family: [^;\"]*", r"font-size: \1px", tags)
    tags = re.sub(r"(\.\d\d)\d+", r"\1", tags)
    tags = re.sub(r"#0000\w\w", lambda m: _STAND_INS.get(m[0], m[0]), tags)
    return tags.replace("; stroke-linejoin: miter", "").replace("; stroke-linecap: square", "")


def _link(drawn: Canvas, number: str) -> str:
    """What stands around a mark: its name, and a link where there is something to read about."""
    href, name = drawn.marks[int(number)]
    link = f' href="{html.escape(href)}" aria-label="{_safe(name)}"' if href else ""
    return f"<a{link}><title>{_safe(name)}</title>"


def _safe(text: str) -> str:
    return html.escape(visible(text, 300))


def plain(value: float) -> str:
    """A tick's label without powers: 0.5, 20, 1k, 25k."""
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def lines(
    axes: Axes,
    paths: Sequence[Sequence[tuple[float, float]]],
    colours: Sequence[str],
    *,
    counts: bool = True,
    **look: Any,
) -> None:
    """Many lines, drawn as one thing: each of matplotlib's own costs a millisecond. counts: whether
    the axes make room for them."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(paths, colors=colours, **look), autolim=counts)


def bare(axes: Axes) -> None:
    """Leaves of the axes but two edges: matplotlib's own ticks are half of what a chart costs, so
    that scale() writes them."""
    axes.set_axis_off()
    edges = [[(0.0, 1.0), (0.0, 0.0), (1.0, 0.0)]]
    lines(axes, edges, [LINE], counts=False, transform=axes.transAxes, linewidths=1)


def scale(axes: Axes, side: Literal["x", "y"], label: str) -> None:
    """Plain numbers and grid lines of a logarithmic axis where matplotlib would have its ticks,
    and its label. To be called when everything else is drawn."""
    from matplotlib.ticker import LogLocator

    low, high = axes.get_xlim() if side == "x" else axes.get_ylim()
    found = LogLocator(subs=(1, 2, 5), numticks=9).tick_values(low, high)
    ticks = [float(tick) for tick in found if low <= tick <= high]
    room = axes.bbox
    below: dict[str, Any]
    if side == "x":
        along, off = axes.get_xaxis_transform(), -7 / room.height
        grid = [[(tick, 0.0), (tick, 1.0)] for tick in ticks]
        for tick in ticks:
            axes.text(tick, off, plain(tick), transform=along, ha="center", va="top", color=DIM)
        below = {"x": 0.5, "y": -22 / room.height, "va": "top"}
    else:
        along, off = axes.get_yaxis_transform(), -5 / room.width
        grid = [[(0.0, tick), (1.0, tick)] for tick in ticks]
        for tick in ticks:
            axes.text(off, tick, plain(tick), transform=along, ha="right", va="center", color=DIM)
        below = {"x": -33 / room.width, "y": 0.5, "va": "center", "rotation": 90}
    axes.text(s=label, transform=axes.transAxes, ha="center", color=DIM, **below)
    look: Any = {"transform": along, "linewidths": 0.5, "zorder": 0.5}
    lines(axes, grid, [LINE], counts=False, **look)
