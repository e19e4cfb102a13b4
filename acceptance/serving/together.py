"""The nodes of one server, each in the care of its own warden, as one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, Self

from acceptance.errors import ServerError
from acceptance.serving.launcher import Care, Ended, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import psutil

GIVEN_UP = 5.0  # seconds of grace for nodes whose server could not be started on another


class NodeCare(Care, Protocol):
    """Of one node. ended_at: monotonic seconds at which its end was heard of, None before."""

    @property
    def ended_at(self) -> float | None: ...


class Together:
    """Several nodes as one server's Care: the head first, which has the API server."""

    def __init__(self, nodes: Sequence[NodeCare]) -> None:
        self.nodes = tuple(nodes)
        self._ended: Ended | None = None

    @classmethod
    def start(cls, parts: Sequence[Part], take: Callable[[Part], NodeCare]) -> Self:
        """Starts every part. Raises the ServerError of one that cannot be, naming its node; those
        that were started are ended then."""
        nodes: list[NodeCare] = []
        try:
            for part in parts:
                nodes.append(take(part))
        except BaseException as error:
            cls(nodes).end(GIVEN_UP)
            if isinstance(error, ServerError):
                error.happened = f"node {len(nodes)}: {error.happened}"
            raise
        return cls(nodes)

    @property
    def head(self) -> NodeCare:
        return self.nodes[0]

    @property
    def pid(self) -> int | None:
        return self.head.pid

    @property
    def exit_code(self) -> int | None:
        return self.head.exit_code

    @property
    def exited(self) -> bool:
        return any(node.exited for node in self.nodes)

    @property
    def lost(self) -> bool:
        return any(node.lost for node in self.nodes)

    @property
    def fate(self) -> str:
        first = self._first()
        node = self.nodes[first]
        return f"lost node {first}, which {node.fate}" if first or node.lost else node.fate

    @property
    def log(self) -> Path:
        return self.nodes[self._first()].log

    def processes(self) -> list[psutil.Process]:
        return [process for node in self.nodes for process in node.processes()]

    def cpu_seconds(self) -> float:
        return sum(node.cpu_seconds() for node in self.nodes)

    def fetch(self) -> None:
        for node in self.nodes:
            node.fetch()

    def signal(self, number: int) -> None:
        for node in self.nodes:
            node.signal(number)

    def end(self, grace: float) -> Ended:
        """All nodes at once. seconds: until the last was gone; code: the head's."""
        if self._ended is None and self.nodes:
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                ends = list(pool.map(lambda node: node.end(grace), self.nodes))
            survivors = tuple(pid for one in ends for pid in one.survivors)
            self._ended = Ended(ends[0].code, max(one.seconds for one in ends), survivors)
        return self._ended or Ended(None, 0.0, ())

    def wait_exit(self, seconds: float) -> int | None:
        return self.head.wait_exit(seconds)

    def _first(self) -> int:
        """Number of the node that ended first; the head's while all live."""
        ended = {
            number: node.ended_at or float("inf")
            for number, node in enumerate(self.nodes)
            if node.exited
        }
        return min(ended, key=lambda number: ended[number], default=0)
