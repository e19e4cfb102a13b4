"""A judged fleet as a page that looks like the report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from acceptance.deployments.schema import Lane
from acceptance.fleet.thresholds import thresholds
from acceptance.judging.verdict import Verdict
from reports import fleetrows
from reports.summary import CSS, SUBJECT, environment
from reports.text import LANES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from acceptance.fleet.fleet import Fleet, Standing
    from acceptance.fleet.outliers import Distance

REPORT = "acceptance.html"
NOTABLE = 3.0  # modified z-score from which a value is tinted, though it may mean nothing


@dataclass(frozen=True)
class Row:
    """A host. link: of its own report, relative to the page; empty where there is none."""

    standing: Standing
    state: str
    tone: str
    reasons: tuple[str, ...]
    link: str


@dataclass(frozen=True)
class Heat:
    """One cell of the heat map. level: out, off, ahead, same or none; text says it as well."""

    level: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Hosts by metric of one deployment; each cell the farthest value of all that metric's."""

    deployment: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[Row, tuple[Heat, ...]], ...]


def render_fleet(fleet: Fleet, runs: Mapping[str, Path], page: Path) -> str:
    """The whole page. runs: by host; page: where it will lie, for links that work from there."""
    rows = [_row(one, runs[one.host.name], page) for one in fleet.standings]
    lane = fleet.lane
    lane_name = lane.value if lane not in (None, Lane.FULL) else ""
    title = f"{fleet.word}{f' ({lane_name} lane)' if lane_name else ''} · fleet · {SUBJECT}"
    limits = thresholds()
    return (
        environment()
        .get_template("fleet.html.j2")
        .render(
            fleet=fleet,
            title=title,
            tone=_tone(fleet),
            says=fleetrows.says(fleet),
            notes=fleetrows.notes(fleet),
            headline=fleetrows.headline(fleet),
            lane=lane_name,
            banner=LANES[lane] if lane is not None and lane_name else "",
            rows=rows,
            maps=_maps(fleet, rows),
            columns=fleetrows.EVIDENCE,
            evidence=fleetrows.evidence,
            sentence=fleetrows.sentence,
            off=fleetrows.off,
            rules=limits.rules,
            limits=limits,
            notable=NOTABLE,
            css=CSS.read_text(encoding="utf-8"),
        )
    )


def _row(standing: Standing, run: Path, page: Path) -> Row:
    return Row(
        standing=standing,
        state=fleetrows.state(standing),
        tone=_tone_of(standing),
        reasons=tuple(fleetrows.reasons(standing)),
        link=_link(run, page),
    )


def _link(run: Path, page: Path) -> str:
    report = (run if run.is_dir() else run.parent) / REPORT
    if not report.is_file():
        return ""
    return quote(os.path.relpath(report.resolve(), page.resolve().parent))


def _tone(fleet: Fleet) -> str:
    if fleet.well:
        return "good" if fleet.lane is Lane.FULL else "other"
    return "short" if fleet.word == Verdict.INCOMPLETE else "bad"


def _tone_of(standing: Standing) -> str:
    if standing.patterns or standing.verdict is Verdict.REJECTED:
        return "bad"
    if not standing.well:
        return "short"
    return "good" if standing.host.lane is Lane.FULL else ""


def _maps(fleet: Fleet, rows: Sequence[Row]) -> list[HeatMap]:
    """One map for each deployment; metrics in the order of the rules."""
    found: dict[tuple[str, str, str], Distance] = {}
    for one in fleet.distances:
        key = one.place.deployment, one.place.metric, one.host
        if key not in found or _rank(one) > _rank(found[key]):
            found[key] = one
    order = [rule.metric for rule in thresholds().rules]
    maps = []
    for deployment in dict.fromkeys(deployment for deployment, _, _ in found):
        mine = {metric for name, metric, _ in found if name == deployment}
        metrics = tuple(metric for metric in order if metric in mine)
        cells = tuple(
            (row, tuple(_heat(found.get((deployment, m, row.standing.host.name))) for m in metrics))
            for row in rows
        )
        maps.append(HeatMap(deployment, metrics, cells))
    return maps


def _rank(one: Distance) -> tuple[bool, float]:
    """What stands out before what does not, then by how far it is off."""
    return one.stands_out, one.score


def _heat(one: Distance | None) -> Heat:
    if one is None:
        return Heat("none", "–")
    where = f"{one.place.what}, {one.cells} cells together" if one.cells else one.place.what
    told = f"{where}: {one.score:.1f} spreads from its peers"
    if one.stands_out:
        return Heat("out", f"{fleetrows.off(one)} stands out", told)
    level = "off" if one.score >= NOTABLE else "ahead" if one.ahead else "same"
    return Heat(level, fleetrows.off(one), told)
