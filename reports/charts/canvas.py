"""A figure, and what becomes of it in the page: one small SVG that follows the page's colours.

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
from typing import TYPE_CHECKING, Any

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
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
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
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": drawn.name}):
        drawn.figure.canvas.print_figure(text, format="svg", metadata={"Date": None})
    svg = _page_svg(text.getvalue(), drawn, title, about)
    return Chart(title, about, svg, caption or title)


def _page_svg(svg: str, drawn: Canvas, title: str, about: str) -> str:
    view = re.search(r'viewBox="([^"]+)"', svg)
    body = svg[svg.index("<g ") : svg.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', body))
    tags = re.compile(r"<[^>]+>")
    body = tags.sub(lambda found: _tag(found[0], used, drawn), body)
    body = re.sub(r">\s+<", "><", body).strip()
    role = "group" if any(href for href, _ in drawn.marks) else "img"
    name = drawn.name
    return (
        f'<svg class="chart" viewBox="{view[1] if view else "0 0 1 1"}" role="{role}" '
        f'aria-labelledby="{name}-t {name}-d" preserveAspectRatio="xMidYMid meet">'
        f'<title id="{name}-t">{_safe(title)}</title><desc id="{name}-d">{_safe(about)}</desc>'
        f"{body}</svg>"
    )


def _tag(tag: str, used: set[str], drawn: Canvas) -> str:
    if tag.startswith("</"):
        return tag
    if tag.startswith('<a xlink:href="mark:'):
        href, name = drawn.marks[int(tag[20 : tag.index('"', 20)])]
        link = f' href="{html.escape(href)}" aria-label="{_safe(name)}"' if href else ""
        return f"<a{link}><title>{_safe(name)}</title>"
    tag = re.sub(r' id="([^"]*)"', lambda m: _id(m, used, drawn.name), tag)
    tag = re.sub(r"(url\(#|xlink:href=\"#)", rf"\1{drawn.name}-", tag).replace("xlink:", "")
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r"#0000\w\w", lambda m: _STAND_INS.get(m[0], m[0]), tag)
    return tag.replace("; stroke-linejoin: miter", "").replace("; stroke-linecap: square", "")


def _id(found: re.Match[str], used: set[str], name: str) -> str:
    return f' id="{name}-{found[1]}"' if found[1] in used else ""


def _safe(text: str) -> str:
    return html.escape(visible(text, 300))


def plain(value: float, _: object = None) -> str:
    """A tick's label without powers: 0.5, 20, 1k, 25k."""
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def log_ticks(axis: Any, *, sub: Sequence[float] = (1, 2, 5)) -> None:
    """Plain numbers on a logarithmic axis, enough of them on a short one too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis.set_major_locator(LogLocator(subs=sub, numticks=9))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
