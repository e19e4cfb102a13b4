"""Nodes of a Ray cluster for one server: reserved by a placement group, an agent on each."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acceptance.cluster.gpuagent import GpuAgent
from acceptance.cluster.hosts import KIND
from acceptance.errors import InputError, ServerError

if TYPE_CHECKING:
    from acceptance.cluster.agent import About
    from acceptance.deployments.schema import Deployment

RESERVED = 60.0  # seconds in which the cluster must have the nodes free
ANSWER = 60.0  # seconds in which a new agent must answer: it starts an interpreter
PORTS = 2  # of each node: of HTTP, and of the meeting
AT_ONCE = 8  # questions that an agent hears at once, such as for news while it ends its part
SOME = 0.001  # of a kind of GPUs: that is on the node, or is not


@dataclass(frozen=True)
class Seat:
    """A reserved node. offset: its clock less this host's, in seconds; within: how far that may be
    wrong, half the time that asking took."""

    agent: Any
    about: About
    offset: float
    within: float

    def note(self, number: int) -> str:
        """What is recorded of it, at the top of its log."""
        about = self.about
        return (
            f"acceptance: node {number} is {about.host} at {about.address}, interface "
            f"{about.interface or 'unknown'}; its clock is {self.offset:+.4f} s from the driver's, "
            f"within {self.within:.4f} s"
        )

    def name(self, number: int) -> str:
        """Of the node, for people."""
        return f"node {number} ({self.about.host})"


class NodeAgent(GpuAgent):
    """As an actor."""

    def __init__(self) -> None:
        import ray  # type: ignore[import-not-found,unused-ignore]

        super().__init__(ray.util.get_node_ip_address())
        threading.Thread(target=self.mind, daemon=True).start()


class Seats:
    """The seats of one deployment, in order of its nodes. ray: the module, connected."""

    def __init__(self, ray: Any, deployment: Deployment) -> None:
        """Raises AcceptanceError; nothing is reserved then."""
        self._ray = ray
        self._agents: list[Any] = []
        self._group: Any = None
        self.taken: tuple[Seat, ...] = ()
        try:
            bundle = self._bundle(deployment)
            self._reserve([bundle] * deployment.layout.nodes, deployment.name)
            self._agents = [self._agent(n, bundle) for n in range(deployment.layout.nodes)]
            self.renew()
        except BaseException:
            self.release()
            raise

    def renew(self) -> None:
        """Asks each node for what changes: its clock, and ports that are free now. Raises
        ServerError."""
        self.taken = tuple(self._seat(number, one) for number, one in enumerate(self._agents))

    def release(self) -> None:
        """Gives the nodes back. Safe to call again."""
        for agent in self._agents:
            self._ray.kill(agent)
        self._agents, self.taken = [], ()
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
            self._group = None

    def _bundle(self, deployment: Deployment) -> dict[str, float]:
        """What each node must have: a CPU for the agent, and GPUs, of the right kind where Ray
        knows such a node."""
        gpus, kind = deployment.gpus_here, f"{KIND}{deployment.gpus.kind}"
        known = any(kind in node["Resources"] for node in self._ray.nodes() if node["Alive"])
        return {
            "CPU": 1.0,
            **({"GPU": float(gpus)} if gpus else {}),
            **({kind: SOME} if gpus and known else {}),
        }

    def _reserve(self, bundles: list[dict[str, float]], name: str) -> None:
        self._group = self._ray.util.placement_group(bundles, strategy="STRICT_SPREAD")
        try:
            self._ray.get(self._group.ready(), timeout=RESERVED)
        except self._ray.exceptions.GetTimeoutError as error:
            raise InputError(
                f"{name} needs {len(bundles)} nodes with {_told(bundles[0])} free on each, and the "
                f"cluster has not got them within {RESERVED:.0f} s",
                asked="a placement group, STRICT_SPREAD",
                cause="; ".join(self._nodes()),
            ) from error

    def _agent(self, number: int, bundle: dict[str, float]) -> Any:
        strategy = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=number
        )
        options = {
            "num_cpus": bundle["CPU"],
            "num_gpus": bundle.get("GPU", 0),
            "max_concurrency": AT_ONCE,
            "scheduling_strategy": strategy,
        }
        return self._ray.remote(NodeAgent).options(**options).remote()

    def _seat(self, number: int, agent: Any) -> Seat:
        try:
            self._ray.get(agent.about.remote(0), timeout=ANSWER)  # it has started
            asked, clock = time.monotonic(), time.time()
            about: About = self._ray.get(agent.about.remote(PORTS), timeout=ANSWER)
            took = time.monotonic() - asked
        except self._ray.exceptions.RayError as error:
            raise ServerError(
                f"node {number} of the cluster did not start its agent, or has lost it",
                cause=str(error).strip().splitlines()[-1],
                hint="the suite and its environment must be on every node, at the same paths",
            ) from error
        return Seat(agent, about, about.time - (clock + took / 2), took / 2)

    def _nodes(self) -> list[str]:
        return [
            f"{node['NodeManagerAddress']} has {_told(node['Resources'])}"
            for node in self._ray.nodes()
            if node["Alive"]
        ]


def _told(resources: dict[str, float]) -> str:
    counts = {"CPU": resources.get("CPU", 0), "GPU": resources.get("GPU", 0)}
    kinds = [name.removeprefix(KIND) for name in resources if name.startswith(KIND)]
    told = [f"{count:g} {name}" for name, count in counts.items() if count]
    return ", ".join(told + [f"of kind {kind}" for kind in kinds if counts["GPU"]]) or "nothing"
