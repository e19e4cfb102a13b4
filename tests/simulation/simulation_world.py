"""Starts simulated servers as processes, and asks them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from acceptance.deployments.load import load_deployments
from acceptance.deployments.schema import Deployment, Profile
from acceptance.serving.here import free_port
from acceptance.serving.log import LogTail
from acceptance.serving.metrics import Metrics, parse
from acceptance.serving.phases import Phases
from acceptance.simulation.command import simulated_command

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "the-key"
PATIENCE = 60.0  # seconds, for a loaded machine
ROOT = Path(__file__).parents[2]
QUICK = ("--sim-start-seconds", "0.05")


def simulated(name: str = "fp8-8xh200-tp-ep") -> Deployment:
    return load_deployments()[f"simulated-{name}"]


@dataclass
class Running:
    """A simulated server. max_model_len and url: what conformance's World asks of a twin."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    max_model_len: int
    model: str

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE
        )

    def complete(self, **body: Any) -> httpx.Response:
        asked = {"model": self.model, "prompt": "Hello", "max_tokens": 4, "temperature": 0, **body}
        with self.client as client:
            return client.post("/v1/completions", json=asked)

    def metrics(self) -> Metrics:
        return parse(httpx.get(f"{self.url}/metrics").text)

    def truth(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/simulation/truth").json()
        return found

    def phases(self) -> Phases:
        """Its log, read as a start's."""
        found = Phases(0.0)
        for number, line in enumerate(LogTail(self.log).poll()):
            found.feed(line, float(number))
        return found

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self) -> None:
        """Until it listens."""
        limit = time.monotonic() + PATIENCE
        while "Application startup complete" not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < limit, self.text
            time.sleep(0.02)


@contextmanager
def running(
    folder: Path,
    deployment: Deployment | None = None,
    *more: str,
    fault: str = "",
    profile: Profile = Profile.BENCHMARK,
    wait: bool = True,
) -> Iterator[Running]:
    """One server for the time of the block. more: flags. fault: JSON for ACCEPTANCE_SIMULATION."""
    deployment = deployment or simulated()
    port = free_port()
    command = simulated_command(deployment, profile, port=port)
    env = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    env |= {"PYTHONPATH": str(ROOT), "VLLM_API_KEY": KEY, "ACCEPTANCE_SIMULATION": fault}
    log = folder / f"server-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command.run_by((sys.executable,)), *QUICK, *more],
            env={**env, **command.env},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    server = Running(
        f"http://127.0.0.1:{port}",
        process,
        log,
        deployment.options.max_model_len or 0,
        deployment.model,
    )
    try:
        if wait:
            server.wait()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
