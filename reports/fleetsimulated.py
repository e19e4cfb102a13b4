"""A fleet for whoever has no cluster: hosts that are all this machine, in a Ray of its own.

Each serves the same small simulated deployment and is accepted by the suite's own checks of speed,
memory and completions. Some are planted with a fault; these and no others must be named.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.cluster.connect import own_cluster
from acceptance.cluster.hosts import FleetHost
from acceptance.errors import InputError
from acceptance.fleet.thresholds import Trait, thresholds
from acceptance.simulation.faults import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.fleet.fleet import Fleet, Standing

DEPLOYMENTS = Path(__file__).parents[1] / "fixtures" / "demo" / "fleet"
# Two cells, and completions before memory is looked at, so that a leak can be seen.
SUITES = (
    "suites/conformance/test_completions.py",
    "suites/memory/test_memory.py",
    "suites/performance",
)
CHECKS = "prompt-heavy-b16 or decode-heavy-b64 or test_memory or test_completions"
LARGE = 8  # running requests from which on it is the larger of the two cells
PER_CORE = 4  # hosts that run at once for each core: they wait most of their time
APART = 16.0  # seconds of a core from one host's begin to the next's: those that begin take cores
HEALTHY = 3  # hosts for each that is planted, at least


@dataclass(frozen=True)
class Planted:
    """A sick host. shows: by what it must be named; None for one that drops out. where: in that
    workload and no other; empty for any."""

    what: str
    shows: Trait | None
    where: str = ""
    knobs: dict[str, Any] = field(default_factory=dict)


PLANTED = (
    Planted(
        what="15 % slower in one workload",
        shows=Trait.SLOWER,
        where="decode-heavy",
        knobs={"decode": 1.15, "from_batch": LARGE},
    ),
    Planted(what="drops out", shows=None),
    Planted(what="jitter", shows=Trait.JITTER, knobs={"noise": 0.6}),
    # Bounded: cells that are measured again and again would take the machine's memory.
    Planted(what="leaks memory", shows=Trait.LEAKING, knobs={"leak_mib": 96, "leak_requests": 16}),
)


def check(count: int) -> None:
    """Raises InputError for a fleet that is too small to say anything."""
    fewest = thresholds().fleet.fewest
    if count < fewest:
        raise InputError(f"a fleet of {count} says nothing", hint=f"--simulate {fewest}, or more")


def words() -> list[str]:
    """What pytest is given on each host."""
    given = [f"--deployments={DEPLOYMENTS}", "--deployment=fleet-host", "--tier=gate"]
    return [*SUITES, "-k", CHECKS, *given, "-p", "no:cacheprovider"]


def planted(count: int) -> dict[str, Planted]:
    """The sick hosts of so many, by name; fewer than all where there are too few to be peers."""
    sick = PLANTED[: count // (HEALTHY + 1)]
    return {_name(number * count // len(sick) + 1): one for number, one in enumerate(sick)}


def hosts(count: int) -> list[FleetHost]:
    """All of them. Each is pinned by a resource that only it has."""
    sick = planted(count)
    return [
        FleetHost(
            name=name,
            resources={name: 1.0},
            env={VARIABLE: json.dumps(sick[name].knobs)} if name in sick else {},
            dies=name in sick and sick[name].shows is None,
        )
        for name in map(_name, range(count))
    ]


def at_once() -> int:
    """Hosts that run together."""
    return PER_CORE * len(os.sched_getaffinity(0))


def apart() -> float:
    """Seconds from the begin of one host to that of the next."""
    return APART / len(os.sched_getaffinity(0))


def cluster(all_hosts: Sequence[FleetHost]) -> Any:
    """ray, connected to a cluster that has them. Raises InputError."""
    return own_cluster(at_once(), {name: 1.0 for host in all_hosts for name in host.resources})


def missed(fleet: Fleet, count: int) -> str:
    """How what was named differs from what was planted; empty where it does not."""
    sick = planted(count)
    wrong = [
        f"{one.host.name}: {sick[one.host.name].what if one.host.name in sick else 'healthy'} was "
        f"planted, and it is {_named(one)}"
        for one in fleet.standings
        if not _as_planted(one, sick.get(one.host.name))
    ]
    return "the simulation did not show what was planted: " + "; ".join(wrong) if wrong else ""


def _as_planted(standing: Standing, sick: Planted | None) -> bool:
    if sick is None:
        return not standing.named
    found = {pattern.where for pattern in standing.patterns if pattern.trait is sick.shows}
    if sick.shows is None:
        return not standing.compared
    return found == {sick.where} if sick.where else bool(found)


def _named(standing: Standing) -> str:
    told = [str(pattern.trait) for pattern in standing.patterns]
    return ", ".join(dict.fromkeys([*told, *standing.short, *standing.own])) or "not named"


def _name(number: int) -> str:
    return f"host-{number:02}"
