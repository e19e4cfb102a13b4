"""A server that answers: one we own, or one we are attached to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from acceptance.serving.phases import Facts

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.version import Version

    from acceptance.deployments.command import ServerCommand
    from acceptance.deployments.installed import Vllm
    from acceptance.deployments.schema import Deployment, Profile
    from acceptance.errors import ServerError
    from acceptance.gpus.sampler import MemorySampler
    from acceptance.serving.addresses import Addresses
    from acceptance.serving.launcher import Care, Ended


@dataclass
class Startup:
    """How a start went. phases: name to seconds spent in it, in order; ready: seconds in all."""

    phases: dict[str, float] = field(default_factory=dict)
    ready: float = 0.0
    facts: Facts = field(default_factory=Facts)


class Watcher(Protocol):
    """Whoever watches a live server; told to stop before the server is ended on purpose."""

    def stop(self) -> None: ...


@dataclass
class Server:
    """What every stage after launch needs to know of a server.

    model: the served name. model_path: what clients pass as --tokenizer. log: None when attached,
    the head's where there are several nodes; node_logs: of the others, in order. version: of the
    vLLM that serves. bench_env: environment additions for vLLM's own clients. several: all
    addresses of one that has more than base_url, or other ones for its metrics; else None.
    """

    deployment: Deployment
    profile: Profile
    base_url: str
    api_key: str
    model: str
    model_path: str
    version: Version
    vllm: Vllm | None
    log: Path | None = None
    node_logs: tuple[Path, ...] = ()
    command: ServerCommand | None = None
    custody: Care | None = None
    startup: Startup = field(default_factory=Startup)
    bench_env: dict[str, str] = field(default_factory=dict)
    broken: ServerError | None = None
    ended: Ended | None = None
    watch: Watcher | None = None
    memory: MemorySampler | None = None
    several: Addresses | None = None

    @property
    def attached(self) -> bool:
        """Whether the server was there before us, and stays after us."""
        return self.custody is None

    @property
    def logs(self) -> tuple[Path, ...]:
        """Of every node, the head's first; empty when attached."""
        return (self.log, *self.node_logs) if self.log is not None else ()

    def pids(self) -> list[int]:
        """Processes of the server's tree; empty when attached."""
        return [p.pid for p in self.custody.processes()] if self.custody else []

    def check(self) -> None:
        """Raises the ServerError that broke this server, if any did (see watch.py)."""
        if self.broken is not None:
            raise self.broken
