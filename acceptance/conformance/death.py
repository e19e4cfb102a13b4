"""What becomes of a server whose engine is killed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import psutil

from acceptance.errors import ObservationError
from acceptance.serving.client import client

if TYPE_CHECKING:
    from acceptance.serving.server import Server

ENGINE = "EngineCore"  # vLLM names its processes so


@dataclass(frozen=True)
class Death:
    """health: the last status of /health, 0 once nothing listened. seconds: until it was no longer
    200; None where it stayed so. code: exit code of the API server, None while it lives. survivors:
    processes that had to be killed in the end."""

    health: int
    seconds: float | None
    code: int | None
    survivors: tuple[int, ...]

    def problems(self) -> list[str]:
        """What should be otherwise; none where the death is told and nothing stays behind."""
        found = [] if self.seconds is not None else ["/health still answers 200"]
        if self.code is None:
            found.append("the API server lives on")
        elif self.code == 0:
            found.append("the API server ends with exit code 0, as if all were well")
        return found + [f"process {pid} stays behind" for pid in self.survivors]


def kill_engine(server: Server) -> Death:
    """SIGKILL to one engine; then, within the hang budget, what /health and the exit code say, and
    within the stop budget who is left. Raises ObservationError where no engine is found."""
    custody, budgets = server.custody, server.deployment.budgets
    assert custody is not None
    engines = [process for process in custody.processes() if ENGINE in _name(process)]
    if not engines:
        raise ObservationError("no engine among the server's processes", asked=f"a {ENGINE} to end")
    engines[0].kill()
    began = time.monotonic()
    health, seconds = 200, None
    while seconds is None and time.monotonic() < began + budgets.hang:
        health = _health(server)
        if health != 200:
            seconds = time.monotonic() - began
        time.sleep(0.05)
    code = custody.wait_exit(budgets.hang)
    ended = custody.end(budgets.stop)
    return Death(health, seconds, code, ended.survivors)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""


def _health(server: Server) -> int:
    try:
        with client(server, 2) as http:
            return http.get("/health").status_code
    except httpx.HTTPError:
        return 0
