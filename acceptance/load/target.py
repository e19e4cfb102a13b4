"""What the load needs to know of a server, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from acceptance.deployments.installed import Vllm
    from acceptance.deployments.schema import Deployment


class Target(Protocol):
    """A server to put load on; acceptance.serving.server.Server is one.

    model: the served name. model_path: what the client passes as --tokenizer. log: the server's
    log, of its head where there are several nodes, None when it was not started here; node_logs:
    those of the other nodes, in order. vllm: whose `vllm bench serve` drives the load, None
    when none is installed. bench_env: additions to the client's environment.
    """

    @property
    def deployment(self) -> Deployment: ...
    @property
    def base_url(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def model_path(self) -> str: ...
    @property
    def log(self) -> Path | None: ...
    @property
    def node_logs(self) -> tuple[Path, ...]: ...
    @property
    def vllm(self) -> Vllm | None: ...
    @property
    def bench_env(self) -> Mapping[str, str]: ...

    def check(self) -> None:
        """Raises ServerError once the server is dead or hung. Sends it nothing: a generation
        during a cell would be counted as the cell's."""
