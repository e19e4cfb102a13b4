"""Of everything that a run observed, the values by which hosts are held against one another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from acceptance.fleet.thresholds import SPEED
from acceptance.gpus.kv import GIB
from acceptance.judging.bounds import NO_INSTRUMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from acceptance.fleet.thresholds import Rule
    from acceptance.judging.observed import Observed


@dataclass(frozen=True, order=True)
class Place:
    """What the same value is called on every host. what: cell, phase or check. workload: of a
    cell; empty for what is none."""

    deployment: str
    profile: str
    what: str
    workload: str
    metric: str

    def __str__(self) -> str:
        return " ".join(part for part in (self.deployment, self.what, self.metric) if part)


@dataclass(frozen=True)
class Reading:
    """A value of one host. device: which of its GPUs, engines or ranks has it, where there are
    several: the worst of them speaks for the host."""

    value: float
    unit: str = ""
    device: str = ""


def readings(observed: Iterable[Observed], rules: Sequence[Rule]) -> dict[Place, Reading]:
    """The values of one run that a rule speaks of; the last attempt of each. Without speeds where
    the lane is no instrument for them. What was invalid, or is no number, is not there."""
    last: dict[tuple[Place, str], Observed] = {}
    for one in observed:
        key = _place(one), one.holder
        if key not in last or one.attempt >= last[key].attempt:
            last[key] = one
    told: dict[Place, list[Reading]] = {}
    speechless = {place.deployment for (place, _), one in last.items() if one.lane in NO_INSTRUMENT}
    for (place, device), one in last.items():
        if one.number is not None:
            unit = one.judgement.measurement.unit
            told.setdefault(place, []).append(Reading(one.number, unit, device))
        if (grown := _growth(one)) is not None:
            place = replace(place, metric="resident_growth_gib")
            told.setdefault(place, []).append(Reading(grown, "GiB", device))
    return {
        place: reading
        for rule in rules
        for place, reading in _by(rule, told)
        if not (rule.trait in SPEED and place.deployment in speechless)
    }


def _by(rule: Rule, told: Mapping[Place, list[Reading]]) -> Iterable[tuple[Place, Reading]]:
    """Of every place the reading that this rule judges."""
    worst = min if rule.higher else max
    if not rule.ratio:
        for place, found in told.items():
            if place.metric == rule.metric:
                yield place, worst(found, key=lambda reading: reading.value)
        return
    above, below = rule.ratio
    for place, found in told.items():
        base = told.get(replace(place, metric=below), [])
        if place.metric == above and base and base[0].value > 0:
            yield replace(place, metric=rule.metric), Reading(found[0].value / base[0].value)


def _place(one: Observed) -> Place:
    cell = f"{one.workload}-b{one.batch}" if one.workload else ""
    return Place(
        deployment=one.deployment,
        profile=str(one.conditions.get("profile", "")),
        what=cell or str(one.conditions.get("phase", "")) or one.check,
        workload=one.workload,
        metric=one.metric,
    )


def _growth(one: Observed) -> float | None:
    """GiB by which the resident memory of the server's processes grew, where that was sampled."""
    grown = one.judgement.measurement.evidence.get("growth_bytes")
    if one.metric != "resident_gib" or not isinstance(grown, int | float) or one.number is None:
        return None
    return grown / GIB
