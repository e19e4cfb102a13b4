"""From the hosts of a fleet to what is said of it and of each of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.fleet.host import differences, gaps, unlike
from acceptance.fleet.outliers import ask
from acceptance.judging.verdict import STRENGTH, WORDS, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.deployments.schema import Lane
    from acceptance.fleet.host import Host
    from acceptance.fleet.outliers import Distance
    from acceptance.fleet.readings import Place
    from acceptance.fleet.thresholds import Thresholds, Trait

STANDS_OUT = "STANDS OUT"


@dataclass(frozen=True)
class Pattern:
    """In what a host stands out: one trait in one workload, or phase or check, of a deployment.
    distances: the evidence, the farthest first."""

    deployment: str
    trait: Trait
    where: str
    distances: tuple[Distance, ...]

    @property
    def worst(self) -> Distance:
        """The single value that is farthest off; that of all cells together where no single is."""
        return next((one for one in self.distances if not one.cells), self.distances[0])


@dataclass(frozen=True)
class Standing:
    """One host. verdict, word: of its run, but INCOMPLETE where `short` says why it is not of this
    fleet or not whole; REJECTED stays. compared: whether it was held against the others. own: why
    its run is short, without what most hosts' runs say. ahead: what it does better than healthy
    peers do, which is told and not held against it."""

    host: Host
    verdict: Verdict
    word: str
    short: tuple[str, ...]
    compared: bool
    own: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    ahead: tuple[Distance, ...] = ()

    @property
    def well(self) -> bool:
        """Whether it holds all that its lane asks, and does not stand out."""
        return self.verdict is Verdict.ACCEPTED and not self.patterns

    @property
    def named(self) -> bool:
        """Whether anything is said of it that is not said of most hosts."""
        return bool(self.patterns or self.short or self.own)


@dataclass(frozen=True)
class Fleet:
    """What is said of a fleet. short: why hosts could not be held against one another. shared: why
    most hosts' runs are short, such as checks that were left out of all of them. lane: the weakest
    of all. unasked: values that could not be held against one another."""

    standings: tuple[Standing, ...]
    distances: tuple[Distance, ...]
    short: tuple[str, ...]
    notes: tuple[str, ...]
    unasked: tuple[Place, ...] = ()
    shared: tuple[str, ...] = ()

    @property
    def lane(self) -> Lane | None:
        """What the fleet is worth: None when no host tells its lane."""
        lanes = [one.host.lane for one in self.standings if one.host.lane is not None]
        return min(lanes, key=STRENGTH.index) if lanes else None

    @property
    def well(self) -> bool:
        """Whether all hosts are well, and were held against one another."""
        return bool(self.standings) and not self.short and all(one.well for one in self.standings)

    @property
    def word(self) -> str:
        """REJECTED, STANDS OUT or INCOMPLETE, the worst first; else the word of the lane."""
        if any(one.verdict is Verdict.REJECTED for one in self.standings):
            return str(Verdict.REJECTED)
        if any(one.patterns for one in self.standings):
            return STANDS_OUT
        return WORDS[self.lane] if self.well and self.lane else str(Verdict.INCOMPLETE)


def judge_fleet(hosts: Sequence[Host], limits: Thresholds) -> Fleet:
    """Every host's own verdict, and which of them stand out. A host that broke off, or is unlike
    the others, is INCOMPLETE, is not held against the others, and does not move them."""
    odd = unlike(hosts)
    alike = [h for h in hosts if h.verdict is not None and not h.torn and not odd[h.name]]
    missing = gaps(alike)
    asked = ask(alike, limits)
    short = []
    if len(alike) < limits.fleet.fewest:
        short.append(
            f"{len(alike)} hosts can be held against one another, of {len(hosts)}: among fewer than"
            f" {limits.fleet.fewest} none can be said to stand out, nor not to"
        )
    elif not asked.distances:
        short.append("no value was recorded by which hosts can be held against one another")
    names = {host.name for host in alike}
    of_host: dict[str, list[Distance]] = {}
    for one in asked.distances:
        of_host.setdefault(one.host, []).append(one)
    shared = _shared(alike)
    standings = [
        _standing(
            host,
            shared,
            (*host.torn, *odd[host.name], *missing.get(host.name, ())),
            of_host.get(host.name, []),
            host.name in names,
        )
        for host in hosts
    ]
    notes = differences([host for host in hosts if host.verdict is not None])
    if asked.unasked:
        more = f" and {len(asked.unasked) - 1} more" if len(asked.unasked) > 1 else ""
        notes.append(f"not held against one another: {asked.unasked[0]}{more}")
    told = tuple(f"{count} of {len(alike)} runs: {why}" for why, count in shared.items())
    return Fleet(tuple(standings), asked.distances, tuple(short), tuple(notes), asked.unasked, told)


def _shared(hosts: Sequence[Host]) -> dict[str, int]:
    """Why the runs of more than half of these hosts are short, each in the same words, and how many
    runs are: what concerns the fleet, and tells no host from the others."""
    counts = Counter(why for host in hosts if host.verdict for why in host.verdict.reasons)
    return {why: count for why, count in counts.items() if 2 * count > len(hosts)}


def _standing(
    host: Host,
    shared: Mapping[str, int],
    short: tuple[str, ...],
    distances: Sequence[Distance],
    compared: bool,
) -> Standing:
    verdict = host.verdict.verdict if host.verdict else Verdict.INCOMPLETE
    word = host.verdict.word if host.verdict else str(Verdict.INCOMPLETE)
    said = host.verdict.reasons if host.verdict else ()
    if short and verdict is not Verdict.REJECTED:
        verdict = Verdict.INCOMPLETE
        word = str(verdict)
    return Standing(
        host=host,
        verdict=verdict,
        word=word,
        short=short,
        compared=compared,
        own=tuple(one for one in said if one not in shared),
        patterns=tuple(_patterns([one for one in distances if one.stands_out])),
        ahead=tuple(one for one in distances if one.ahead),
    )


def _patterns(distances: Sequence[Distance]) -> list[Pattern]:
    groups: dict[tuple[str, Trait, str], list[Distance]] = {}
    for one in sorted(distances, key=lambda one: -one.score):
        where = one.place.workload or one.place.what
        groups.setdefault((one.place.deployment, one.trait, where), []).append(one)
    return [Pattern(*key, tuple(found)) for key, found in groups.items()]
