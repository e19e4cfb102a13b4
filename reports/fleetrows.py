"""A judged fleet in words and rows, for the terminal and the page alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.verdict import Verdict
from reports.text import number, percent

if TYPE_CHECKING:
    from acceptance.fleet.fleet import Fleet, Pattern, Standing
    from acceptance.fleet.outliers import Distance

EVIDENCE = ("what", "value", "peers' median", "spread", "unit", "worse by", "scores", "chance")


def headline(fleet: Fleet) -> str:
    """The word, the lane unless it is full, and the counts: what the terminal ends with."""
    lane = fleet.lane
    tag = f" ({lane.value} lane)" if lane not in (None, Lane.FULL) else ""
    standings = fleet.standings
    counts = {
        "rejected": sum(one.verdict is Verdict.REJECTED for one in standings),
        "incomplete": sum(
            one.verdict is Verdict.INCOMPLETE and bool(one.short or one.own) for one in standings
        ),
        "standing out": sum(bool(one.patterns) for one in standings),
    }
    told = [f"{count} {name}" for name, count in counts.items() if count]
    hosts = f"{len(standings)} host{'s' if len(standings) != 1 else ''}"
    short = "; most runs are short of a verdict" if fleet.shared else ""
    return f"{fleet.word}{tag}: {', '.join([hosts, *told])}{short}"


def says(fleet: Fleet) -> str:
    """One sentence on what the word means here."""
    if fleet.well:
        return "Every host holds what its run asks, and none stands out from its peers."
    if fleet.short:
        return "The hosts could not be held against one another, which is no pass."
    hosts = len(fleet.standings)
    if fleet.shared:
        named = sum(one.named for one in fleet.standings)
        return f"{named} of {hosts} hosts are unlike their peers; most runs are short of a verdict."
    not_well = sum(not one.well for one in fleet.standings)
    return f"{not_well} of {hosts} hosts are not well; the others are as their peers."


def state(standing: Standing) -> str:
    """Word of the run, and whether the host stands out or was left out."""
    if standing.patterns:
        return f"{standing.word}, stands out"
    return standing.word if standing.compared else f"{standing.word}, not compared"


def reasons(standing: Standing) -> list[str]:
    """Why a host is not well, in lines: what it stands out in, what is short, what its run says
    and those of its peers do not."""
    told = [sentence(pattern) for pattern in standing.patterns]
    return list(dict.fromkeys([*told, *standing.short, *standing.own]))


def notes(fleet: Fleet) -> list[str]:
    """What is told once of the fleet, not of each host."""
    return [*fleet.shared, *fleet.notes]


def sentence(pattern: Pattern) -> str:
    """Such as: slower in decode-heavy of NAME: 9 values, worst decode-heavy-b16 tpot_median_ms."""
    worst, count = pattern.worst, len(pattern.distances)
    values = "1 value" if count == 1 else f"{count} values"
    place = worst.place
    what = "all cells together" if worst.cells else place.what
    where = f"{pattern.trait} in {pattern.where}"
    where += f" of {pattern.deployment}" if pattern.deployment else ""
    on = f" on {worst.device}" if worst.device else ""
    return f"{where}: {values}, worst {what} {place.metric} {off(worst)}{on}"


def off(one: Distance) -> str:
    """By how much a value is worse: a share, or in its unit."""
    if one.cells or not one.absolute:
        return percent(one.worse)
    return f"{one.worse:+.3g} {one.unit}".replace("-", "−").strip()


def evidence(one: Distance) -> tuple[str, ...]:
    """The columns of EVIDENCE. scores: the modified z-score, above 0 when worse."""
    place = one.place
    what = f"{place.deployment} {place.what}".strip()
    if one.cells:
        what = f"{what}, {one.cells} cells together"
    device = f" ({one.device})" if one.device else ""
    return (
        f"{what} {place.metric}{device}",
        percent(one.value) if one.cells else number(one.value),
        percent(one.peers) if one.cells else number(one.peers),
        percent(one.spread).lstrip("+") if one.cells else f"{one.spread:.3g}",
        "" if one.cells else one.unit,
        f"{off(one)} (matters from {_least(one)})",
        f"{one.score:.1f}",
        f"{one.chance:.1g}",
    )


def _least(one: Distance) -> str:
    if one.cells or not one.absolute:
        return percent(one.least).lstrip("+")
    return f"{one.least:.3g} {one.unit}".strip()
