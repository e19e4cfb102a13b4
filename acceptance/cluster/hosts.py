"""Which hosts of a cluster can run what a fleet is to run, from what Ray tells of its nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.deployments.schema import Deployment

KIND = "accelerator_type:"  # of Ray's resources: what GPUs a node has, where Ray knows it


@dataclass(frozen=True)
class Need:
    """GPUs that one host must have, and of which kind; 0 and None where any host will do."""

    gpus: int = 0
    kind: str | None = None


@dataclass(frozen=True)
class FleetHost:
    """A host that runs the acceptance. name: unique in the fleet. node: Ray's id of it; empty for
    a logical one. resources: what pins its agent besides. env: additions to its environment.
    dies: it is planted to drop out once it runs."""

    name: str
    address: str = ""
    node: str = ""
    gpus: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    dies: bool = False


def need_of(deployments: Sequence[Deployment]) -> Need:
    """What each host must have to run all of them. Raises InputError for one that takes several
    hosts, or for several kinds of GPUs."""
    if over := [one.name for one in deployments if one.layout.nodes > 1]:
        raise InputError(
            f"{', '.join(over)} takes several hosts, and each host of a fleet runs its own",
            hint="pytest --cluster runs one deployment over several hosts",
        )
    gpus = max((one.gpus_here for one in deployments), default=0)
    kinds = sorted({one.gpus.kind for one in deployments if one.gpus_here and one.gpus.kind})
    if len(kinds) > 1:
        raise InputError(
            f"deployments for {' and '.join(kinds)}: no host has both",
            hint="name those of one kind with --deployment",
        )
    return Need(gpus, kinds[0] if kinds else None)


def eligible(nodes: Sequence[Mapping[str, Any]], need: Need) -> tuple[list[FleetHost], list[str]]:
    """The hosts among Ray's nodes that have what is needed, in order of their names, and of each
    other living node why it has not."""
    alive = [node for node in nodes if node["Alive"]]
    counts = Counter(str(node["NodeManagerHostname"]) for node in alive)
    found, passed_over = [], []
    for node in alive:
        host, address = str(node["NodeManagerHostname"]), str(node["NodeManagerAddress"])
        name = host if host and counts[host] == 1 else f"{host or 'host'}-{address}"
        if why := _lacks(node["Resources"], need):
            passed_over.append(f"{name} is passed over: it {why}")
        else:
            found.append(FleetHost(name, address, node=str(node["NodeID"]), gpus=need.gpus))
    return sorted(found, key=lambda one: one.name), sorted(passed_over)


def _lacks(resources: Mapping[str, float], need: Need) -> str:
    """Why a node will not do; empty where it will."""
    if not resources.get("CPU"):
        return "gives no CPU to Ray's work"
    if not need.gpus:
        return ""
    there = int(resources.get("GPU", 0))
    kinds = [name.removeprefix(KIND) for name in resources if name.startswith(KIND)]
    if there < need.gpus:
        return f"has {there} of {need.gpus} GPUs"
    if need.kind and kinds and need.kind not in kinds:
        return f"has {', '.join(kinds)}, and {need.kind} is asked for"
    return ""
