"""How far every value of every host lies from those of its peers, and which lie too far.

A value is beyond its peers where chance does not explain it (robust.py) and where it matters
(thresholds.toml): both. Cells of one workload are asked together besides, which finds what is off
by too little in each of them.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from acceptance.fleet.robust import chance, peers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.fleet.host import Host
    from acceptance.fleet.readings import Place
    from acceptance.fleet.thresholds import Rule, Thresholds, Trait


@dataclass(frozen=True)
class Distance:
    """One value of one host against those of its peers.

    value, peers, spread: the host's, the peers' median, and the standard deviation of one value
    against it, in `unit`. worse: by how much it is worse, negative when it is better: a share of
    the peers' median, or in `unit` where absolute; least: from where on that matters. score: the
    modified z-score, above 0 when worse. chance: that a healthy fleet of as many hosts and values
    has any so far off. cells: how many were taken together; 0 for a single value.
    """

    host: str
    place: Place
    trait: Trait
    value: float
    peers: float
    spread: float
    unit: str
    worse: float
    least: float
    score: float
    absolute: bool
    device: str = ""
    cells: int = 0
    freedom: float = 0.0
    chance: float = 1.0
    beyond: bool = False

    @property
    def stands_out(self) -> bool:
        """Too far off, and worse."""
        return self.beyond and self.worse > 0

    @property
    def ahead(self) -> bool:
        """Too far off, and better."""
        return self.beyond and self.worse < 0


@dataclass(frozen=True)
class Asked:
    """distances: of every host and value that was asked about, in order of place. unasked: values
    that too few hosts have, or that have no share for a median of 0."""

    distances: tuple[Distance, ...]
    unasked: tuple[Place, ...] = ()


_Series = dict[str, tuple[float, str, str]]  # by host: value, unit, device


def ask(hosts: Sequence[Host], limits: Thresholds) -> Asked:
    """Holds like hosts against one another. Nothing is asked of fewer than limits.fleet.fewest."""
    if len(hosts) < limits.fleet.fewest:
        return Asked(())
    rules = {rule.metric: rule for rule in limits.rules}
    every: dict[Place, _Series] = {}
    for host in hosts:
        for place, one in host.readings.items():
            every.setdefault(place, {})[host.name] = one.value, one.unit, one.device
    found: list[Distance] = []
    unasked: list[Place] = []
    for place in sorted(every):
        distances = []
        if len(every[place]) >= limits.fleet.fewest:
            distances = _distances(place, rules[place.metric], every[place], 0)
        found += distances
        unasked += [] if distances else [place]
    for place, cells in _workloads(every, rules).items():
        rule, series = _together(rules[place.metric], [every[cell] for cell in cells], limits)
        if len(cells) >= limits.together.fewest and len(series) >= limits.fleet.fewest:
            found += _distances(place, rule, series, len(cells))
    return Asked(tuple(_settled(found, limits.fleet.risk)), tuple(unasked))


def _distances(place: Place, rule: Rule, series: _Series, cells: int) -> list[Distance]:
    """Of every host that has the value."""
    values = [value for value, _, _ in series.values()]
    found = []
    every = peers_of(values, rule.spread, share=not rule.absolute)
    for (host, (value, unit, device)), peers in zip(series.items(), every, strict=True):
        if peers is None:
            continue
        sign = -1.0 if rule.higher else 1.0
        worse = sign * (value - peers.center) / (1.0 if rule.absolute else abs(peers.center))
        found.append(
            Distance(
                host=host,
                place=place,
                trait=rule.trait,
                value=value,
                peers=peers.center,
                spread=peers.spread,
                unit=unit,
                worse=worse,
                least=rule.least,
                score=sign * peers.score(value),
                absolute=rule.absolute,
                device=device,
                cells=cells,
                freedom=peers.freedom,
            )
        )
    return found


def _settled(found: Sequence[Distance], risk: float) -> list[Distance]:
    """The same with what chance makes of each, over all that were asked."""
    settled = []
    for one in found:
        likely = chance(one.score, one.freedom, len(found))
        if likely == 1.0:
            settled.append(one)
            continue
        # A fall of more than all there is cannot be: beyond a least of 1 the factor counts.
        fell = not one.absolute and one.least >= 1 and one.value * (1 + one.least) < one.peers
        beyond = likely <= risk and (abs(one.worse) > one.least or fell)
        settled.append(replace(one, chance=likely, beyond=beyond))
    return settled


def _workloads(
    every: Mapping[Place, _Series], rules: Mapping[str, Rule]
) -> dict[Place, list[Place]]:
    """The cells of each workload, by metric; places of cells whose values are shares."""
    groups: dict[Place, list[Place]] = {}
    for place in sorted(every):
        if place.workload and not rules[place.metric].absolute:
            groups.setdefault(replace(place, what=place.workload), []).append(place)
    return groups


def _together(rule: Rule, cells: Sequence[_Series], limits: Thresholds) -> tuple[Rule, _Series]:
    """The mean of what each cell is off the median of all hosts, as a share that is above 0 when
    worse, and the rule for that. Only of hosts that have every cell.

    How far a mean of a host's cells spreads is measured over the hosts, and not worked out from
    the cells: those of one host are off together.
    """
    root = math.sqrt(max(len(cells), 1))
    asked = rule.model_copy(
        update={
            "absolute": True,
            "higher": False,
            "spread": rule.spread / root,
            "least": max(rule.least / root, limits.together.least),
        }
    )
    sign = -1.0 if rule.higher else 1.0
    centers = [statistics.median(value for value, _, _ in cell.values()) for cell in cells]
    if not all(centers):
        return asked, {}
    shared = [host for host in cells[0] if all(host in cell for cell in cells)]
    return asked, {
        host: (
            statistics.fmean(
                sign * (cell[host][0] - center) / abs(center)
                for cell, center in zip(cells, centers, strict=True)
            ),
            "share",
            "",
        )
        for host in shared
    }
