"""What the stages after a launch know of whoever runs a server's processes, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import psutil

    from acceptance.deployments.nodes import Site
    from acceptance.deployments.schema import Deployment


@dataclass(frozen=True)
class Ended:
    """How a server's tree ended. code: exit code of the API server, negative for a signal, None
    when unknown. survivors: pids that were still there after the grace and were killed."""

    code: int | None
    seconds: float
    survivors: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What one node runs of a server. env: additions to the environment of that node, which keeps
    the rest (see here.py). log: on this host, its folder is the part's own. hold: descriptors that
    last as long as the part does. secret: masked in the log at the end."""

    argv: tuple[str, ...]
    env: dict[str, str]
    log: Path
    mark: str
    hold: tuple[int, ...] = ()
    secret: str = ""


class Care(Protocol):
    """A server's processes in somebody's care: of one warden (custody.py), or of a warden on each
    node (together.py)."""

    @property
    def pid(self) -> int | None:
        """Of the API server."""

    @property
    def exit_code(self) -> int | None:
        """Of the API server, None while it lives."""

    @property
    def exited(self) -> bool:
        """Whether any node's process has ended; others, and engines, may still be there."""

    @property
    def lost(self) -> bool:
        """Whether somebody else ended a warden, and what it cares for with it."""

    @property
    def fate(self) -> str:
        """How it ended, for people: "ended with exit code 1", "lost node 1, which ..."."""

    @property
    def log(self) -> Path:
        """The log that tells why: the head's, or that of the node that ended first."""

    def processes(self) -> list[psutil.Process]:
        """The living processes on this host."""

    def cpu_seconds(self) -> float:
        """CPU seconds used so far on all nodes."""

    def fetch(self) -> None:
        """Blocks until the logs here hold what every node has logged so far."""

    def signal(self, number: int) -> None:
        """A signal to what an operator or an orchestrator would send it: each node's server."""

    def end(self, grace: float) -> Ended:
        """Ends everything: SIGTERM, grace seconds, SIGKILL. Safe to call again."""

    def wait_exit(self, seconds: float) -> int | None:
        """Waits for the API server to end by itself; its exit code, or None when it did not."""


class Launcher(Protocol):
    """Runs servers somewhere, on GPUs that are leased there."""

    def site(self, deployment: Deployment) -> Site:
        """Where the next start is to run: nodes, their GPUs, and ports that are free on them now.
        Raises InputError where the deployment cannot be run."""

    def start(self, parts: Sequence[Part]) -> Care:
        """Starts the parts, the head's first. Raises ServerError, and then nothing is left."""
