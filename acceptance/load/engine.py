"""What puts the load on: vLLM's own benchmark client, run in one of several ways."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from acceptance.judging.judgement import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell


class LoadEngine(StrEnum):
    """worker: the tool's code in a process that imports it once. cli: `vllm bench serve` for each
    cell. rust: the same command, handed to vLLM's Rust client."""

    WORKER = "worker"
    CLI = "cli"
    RUST = "rust"


class ClientLoad(Frozen):
    """What the client itself went through in the measured window. None was not observed.

    lag_p99_ms, lag_max_ms: how late its event loop came to a task that is due every 10 ms; what
    it times is off by as much. cpu_share: CPU seconds of its process per second; it has one
    thread to send and receive, so at 1 it is saturated. sent: requests by the address that each
    went to, where the server has several; empty where it has one.
    """

    lag_p99_ms: float | None = None
    lag_max_ms: float | None = None
    cpu_share: float | None = None
    sent: dict[str, int] = Field(default_factory=dict)


class Engine(Protocol):
    """A way to run the client. argv: the whole `vllm bench serve` command; see command.py."""

    name: LoadEngine

    def prepare(self, target: Target, cells: Sequence[Cell]) -> None:
        """Told early which cells will come. Never raises."""

    def run(
        self,
        target: Target,
        argv: tuple[str, ...],
        log: Path,
        deadline: float,
        check: Callable[[], None],
    ) -> ClientLoad:
        """One run to its end; the tool has written its file then. Its output is appended to log.

        deadline: seconds. check: called about twice a second; what it raises ends the run at once.
        Nothing of the run is left when this returns or raises. Raises ObservationError when the
        client cannot be started, dies, fails, or goes past the deadline.
        """

    def close(self) -> None:
        """Ends whatever runs. Safe to call again."""


def last_line(log: Path) -> str:
    """The last line that the client said, without the progress bars before it."""
    if not log.is_file():
        return ""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.rsplit("\r", 1)[-1].strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("$ ")), "")
