"""The report's own part as HTML, a pure function of the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports import text
from reports.view import Page, draw

if TYPE_CHECKING:
    from reports.reading import Results

TEMPLATES = Path(__file__).parent / "templates"
CSS = TEMPLATES / "report.css"
SUBJECT = "DeepSeek-R1/V3 on vLLM"


def _environment() -> Environment:
    made = Environment(
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
        reach=_reach,
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
    """Length of a margin's bar, 0 to 38: half the limit fills it."""
    return min(abs(margin), 0.5) / 0.5 * 38


_TEMPLATES = _environment()


def render_summary(results: Results) -> str:
    """The fragment that opens acceptance.html."""
    return _TEMPLATES.get_template("summary.html.j2").render(page=draw(results))


def render_page(results: Results) -> str:
    """A whole page without pytest's own table, for a run that could not write its report."""
    page = draw(results)
    return _TEMPLATES.get_template("page.html.j2").render(
        page=page, title=title(page), css=CSS.read_text(encoding="utf-8")
    )


def title(page: Page) -> str:
    """Of window and report: the verdict first, the lane unless it is full."""
    lane = "" if page.full or not page.lane else f" ({page.lane} lane)"
    return f"{page.verdict.word}{lane} · {SUBJECT}"
