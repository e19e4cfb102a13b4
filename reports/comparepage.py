"""A comparison of runs as a page that looks like the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.comparison import Change
from reports.ruling import verdict_of
from reports.summary import CSS, SUBJECT, environment
from reports.text import LANES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.judging.comparison import Compared, Comparison
    from acceptance.judging.verdict import RunVerdict
    from reports.charts.canvas import Chart
    from reports.reading import Results

GROUPS = (
    ("worse", "What got worse", (Change.REGRESSED, Change.BROKE)),
    ("vanished", "What vanished", (Change.VANISHED,)),
    ("better", "What got better", (Change.IMPROVED,)),
    ("appeared", "What appeared", (Change.APPEARED,)),
    ("rest", "What stayed within its tolerance, or gates nothing", (Change.SAME, Change.SHOWN)),
)


@dataclass(frozen=True)
class Side:
    """One of the compared runs."""

    name: str
    base: bool
    verdict: RunVerdict
    results: Results


@dataclass(frozen=True)
class Group:
    """Lines of one kind."""

    slug: str
    heading: str
    lines: tuple[Compared, ...]


def render_comparison(
    comparison: Comparison, read: Mapping[str, Results], base: int, notes: Sequence[str]
) -> str:
    """The whole page. base: how many of the runs, which come first, are the base."""
    sides = [
        Side(name, place < base, verdict_of(results), results)
        for place, (name, results) in enumerate(read.items())
    ]
    lanes = {side.verdict.lane for side in sides if side.verdict.lane not in (None, Lane.FULL)}
    groups = [Group(slug, told, comparison.of(*changes)) for slug, told, changes in GROUPS]
    word, tone, says = _said(comparison)
    chart, problem = _chart(comparison)
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            word=word,
            tone=tone,
            says=says,
            title=f"{word} · {SUBJECT}",
            banners=[LANES[lane] for lane in lanes if lane is not None],
            lane=", ".join(sorted(lane.value for lane in lanes if lane is not None)),
            sides=sides,
            groups=groups,
            notes=notes,
            chart=chart,
            problem=problem,
            css=CSS.read_text(encoding="utf-8"),
        )
    )


def _said(comparison: Comparison) -> tuple[str, str, str]:
    """Word, tone and sentence."""
    if comparison.regressed:
        return "WORSE", "bad", "Something got worse beyond its tolerance, or no longer holds."
    if not comparison.whole:
        return "NOT WHOLE", "short", "Nothing got worse, but not all of the base could be compared."
    return "NOT WORSE", "good", "Nothing got worse beyond its tolerance, and all was there."


def _chart(comparison: Comparison) -> tuple[Chart | None, str]:
    changed = comparison.of(Change.REGRESSED, Change.IMPROVED)
    try:
        from reports.charts import canvas
        from reports.charts.change import change

        with canvas.drawing():
            return change(changed), ""
    except ImportError as error:
        return None, f"no chart: {error}"
