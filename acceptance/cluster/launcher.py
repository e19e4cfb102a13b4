"""The launcher of a Ray cluster: nodes reserved by a placement group, an agent on each."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acceptance.cluster.agent import About, Agent, boot_id
from acceptance.cluster.remote import RemoteCare
from acceptance.deployments.nodes import Node, Site
from acceptance.errors import InputError, ServerError
from acceptance.serving.here import LOOPBACK
from acceptance.serving.together import Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.launcher import Care, Ended, Part

RESERVED = 60.0  # seconds in which the cluster must have the nodes free
ANSWER = 60.0  # seconds in which a new agent must answer: it starts an interpreter
PORTS = 2  # of each node: of HTTP, and of the meeting


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


class RayLauncher:
    """ray: the module, connected (see connect.py)."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._group: Any = None
        self._agents: list[Any] = []
        self._seats: tuple[Seat, ...] = ()

    def site(self, deployment: Deployment) -> Site:
        self.release()
        nodes = deployment.layout.nodes
        bundle = {"CPU": 1.0, **({"GPU": deployment.gpus_here} if deployment.gpus_here else {})}
        self._reserve([bundle] * nodes, deployment.name)
        self._agents = [self._agent(number, bundle) for number in range(nodes)]
        self._seats = tuple(self._seat(number, one) for number, one in enumerate(self._agents))
        head = self._seats[0].about
        return Site(
            nodes=tuple(Node(seat.about.address, seat.about.interface) for seat in self._seats),
            port=head.ports[0],
            host=LOOPBACK if head.boot == boot_id() else head.address,
            meeting=head.ports[1],
        )

    def start(self, parts: Sequence[Part]) -> Care:
        seats = iter(enumerate(self._seats))

        def take(part: Part) -> RemoteCare:
            number, seat = next(seats)
            return RemoteCare(self._ray, seat.agent, seat.about, part, seat.note(number))

        try:
            return _Reserved(Together.start(parts, take), self)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives the nodes back. Safe to call again."""
        for agent in self._agents:
            self._ray.kill(agent)
        self._agents, self._seats = [], ()
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
            self._group = None

    def _reserve(self, bundles: list[dict[str, float]], name: str) -> None:
        self._group = self._ray.util.placement_group(bundles, strategy="STRICT_SPREAD")
        try:
            self._ray.get(self._group.ready(), timeout=RESERVED)
        except self._ray.exceptions.GetTimeoutError as error:
            self.release()
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
            "max_concurrency": 4,  # to be asked for news while it ends its part
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
            self.release()
            raise ServerError(
                f"node {number} of the cluster did not start its agent",
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


class _Reserved(Together):
    """Gives the nodes back at the end."""

    def __init__(self, nodes: Together, launcher: RayLauncher) -> None:
        super().__init__(nodes.nodes)
        self._launcher = launcher

    def end(self, grace: float) -> Ended:
        ended = super().end(grace)
        self._launcher.release()
        return ended


class NodeAgent(Agent):
    """As an actor."""

    def __init__(self) -> None:
        import ray  # type: ignore[import-not-found,unused-ignore]

        super().__init__(ray.util.get_node_ip_address())
        threading.Thread(target=self.mind, daemon=True).start()


def _told(resources: dict[str, float]) -> str:
    counts = {"CPU": resources.get("CPU", 0), "GPU": resources.get("GPU", 0)}
    return ", ".join(f"{count:g} {name}" for name, count in counts.items() if count) or "nothing"
