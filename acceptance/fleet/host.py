"""A host of the fleet, as its run tells of it, and whether it can be held against the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.deployments.schema import Lane
    from acceptance.fleet.readings import Place, Reading
    from acceptance.judging.verdict import RunVerdict


@dataclass(frozen=True)
class Host:
    """One host and its one run.

    name: unique in the fleet. verdict: of its run alone; None where there is no record.
    identity: what has to be the same on like hosts, such as vLLM's version and the deployments
    with their digests. beside: what may differ and is told, such as the driver. torn: why its
    record is not whole; empty for one that reached its end.
    """

    name: str
    verdict: RunVerdict | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[Place, Reading] = field(default_factory=dict)
    torn: tuple[str, ...] = ()

    @property
    def lane(self) -> Lane | None:
        """Of its run."""
        return self.verdict.lane if self.verdict else None


def unlike(hosts: Sequence[Host]) -> dict[str, list[str]]:
    """Why a host is not like the others, by host: a fact in which it differs from more than half of
    all hosts that have a record. Where no value has such a majority, every host is unlike."""
    known = [host for host in hosts if host.verdict is not None]
    reasons: dict[str, list[str]] = {host.name: [] for host in hosts}
    for fact in dict.fromkeys(fact for host in known for fact in host.identity):
        counts = Counter(host.identity.get(fact, "") for host in known)
        value, count = counts.most_common(1)[0]
        for host in known:
            mine = host.identity.get(fact, "")
            if 2 * count <= len(known):
                told = ", ".join(f"{one or 'none'} ({n})" for one, n in counts.most_common(4))
                reasons[host.name].append(f"{fact}: no majority of hosts agrees: {told}")
            elif mine != value:
                reasons[host.name].append(
                    f"{fact}: {mine or 'none'}, and {value or 'none'} in the fleet"
                )
    return reasons


def differences(hosts: Sequence[Host]) -> list[str]:
    """What else differs between hosts, such as the driver, with counts."""
    told = []
    for fact in dict.fromkeys(fact for host in hosts for fact in host.beside):
        counts = Counter(host.beside.get(fact, "") for host in hosts)
        if len(counts) > 1:
            values = ", ".join(f"{value or 'none'} ({n})" for value, n in counts.most_common())
            told.append(f"differs between hosts: {fact}: {values}")
    return told


def gaps(hosts: Sequence[Host]) -> dict[str, list[str]]:
    """By host, the values that more than half of these hosts have and it has not."""
    counts = Counter(place for host in hosts for place in host.readings)
    common = sorted(place for place, count in counts.items() if 2 * count > len(hosts))
    told: dict[str, list[str]] = {}
    for host in hosts:
        missing = [place for place in common if place not in host.readings]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            told[host.name] = [f"its peers have what it has not: {missing[0]}{more}"]
    return told
