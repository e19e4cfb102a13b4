"""The report's own part as HTML, a pure function of the results and of the run's folder."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined

from acceptance.load.measurements import COUNTS, LATENCIES, SPEEDS, STATISTICS
from reports import text
from reports.capabilities import Row, row_of
from reports.charts.book import Book, draw_charts
from reports.charts.sheet import PHASES
from reports.html import BEGIN, END
from reports.spread import spreads
from reports.view import Page, draw

if TYPE_CHECKING:
    from jinja2.bccache import Bucket

    from reports.cells import CellView
    from reports.reading import Results

TEMPLATES = Path(__file__).parent / "templates"
CSS = TEMPLATES / "report.css"
SCRIPT = TEMPLATES / "report.js"
SUBJECT = "DeepSeek-R1/V3 on vLLM"

# Markers as matplotlib draws them, for legends: circle, square, triangles, diamond and so on.
SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
    "M-5 -5H5V5H-5Z",
    "M0 -6L6 5H-6Z",
    "M0 -6.5L6.5 0L0 6.5L-6.5 0Z",
    "M0 6L6 -5H-6Z",
    "M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "M-6 -3L-3 -6L0 -3L3 -6L6 -3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0Z",
    "M0 -6.5L1.8 -2H6.5L2.8 1L4 6L0 3L-4 6L-2.8 1L-6.5 -2H-1.8Z",
)
_ORDER = {
    name: place
    for place, name in enumerate(
        [
            *COUNTS,
            *SPEEDS,
            *(f"{latency}_{statistic}_ms" for latency in LATENCIES for statistic in STATISTICS),
        ]
    )
}


class _Compiled(FileSystemBytecodeCache):
    """Templates as they were compiled last time, beside Python's own; they are compiled anew where
    one has changed, and each time where nothing can be written."""

    def __init__(self) -> None:
        folder = TEMPLATES / "__pycache__"
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
        super().__init__(str(folder))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keeps a template, if it can."""
        with suppress(OSError):
            super().dump_bytecode(bucket)


def _environment() -> Environment:
    made = Environment(
        bytecode_cache=_Compiled(),
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Whatever reaches a page passes through one of these; what is not text is autoescaped.
    made.filters.update(
        visible=text.visible,
        number=text.number,
        percent=text.percent,
        duration=text.duration,
        moment=text.moment,
        reach=_reach,
    )
    made.globals.update(
        shapes=SHAPES,
        phases=[(phase, number) for number, phase in enumerate(PHASES)],
        spreads=spreads,
        row_of=row_of,
        cell_rows=_cell_rows,
        script=SCRIPT.read_text(encoding="utf-8"),
    )
    made.finalize = _shown
    return made


def _shown(value: object) -> object:
    """Foreign text is spelled out wherever it is printed, filter or not. Markup is a str with
    __html__, made by the templates themselves."""
    return (
        text.visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
    )


def _reach(margin: float) -> float:
    """Length of a margin's bar, 0 to 100: half the limit fills it."""
    return min(abs(margin), 0.5) / 0.5 * 100


def _cell_rows(cell: CellView) -> list[Row]:
    """A cell's judgements in the order in which people read them."""
    names = sorted(cell.records, key=lambda name: _ORDER.get(name, len(_ORDER)))
    return [row_of(cell.records[name]) for name in names]


@cache
def environment() -> Environment:
    """Jinja's environment of every page of this room; its filters make foreign text harmless."""
    return _environment()


def render_summary(results: Results, run_dir: Path | None = None) -> str:
    """The fragment that opens acceptance.html."""
    page = draw(results, run_dir)
    return render(page)


def render(page: Page) -> str:
    """The same of a page that was drawn already."""
    return f"{BEGIN}{_filled('summary.html.j2', page)}{END}"


def _filled(template: str, page: Page, **more: object) -> str:
    """The template of this page. Should something in the record be what no section expects, the
    verdict and its reasons still stand, with what went wrong."""
    made = environment().get_template(template)
    try:
        return made.render(page=page, charts=draw_charts(page), bare=False, **more)
    except Exception as error:
        problem = f"sections are missing, for they could not be drawn: {error!r}"
        return made.render(page=page, charts=Book(problem=problem), bare=True, **more)


def render_page(results: Results, run_dir: Path | None = None) -> str:
    """A whole page without pytest's own table, for a run that could not write its report."""
    page = draw(results, run_dir)
    css = CSS.read_text(encoding="utf-8")
    return _filled("page.html.j2", page, title=title(page), css=css)


def title(page: Page) -> str:
    """Of window and report: the verdict first, the lane unless it is full."""
    lane = "" if page.full or not page.lane else f" ({page.lane} lane)"
    return f"{page.verdict.word}{lane} · {SUBJECT}"
