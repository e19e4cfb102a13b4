"""What binding and waiting do for a rehearsal on few cores: the same burst under each, in one run.

    .tox/rehearsal/bin/python tests/benchmarks/binding.py [--starts 2] [--bursts 10]

A burst is 16 requests at once of 64 tokens each. For every binding a server is
started anew and gets the bursts; printed are the median, the fastest and the slowest burst in
seconds, and CPU seconds of the server's processes and of this client for a burst. The last line is
the spread (slowest by fastest) of each, as a ratio to that of the shipped binding.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from acceptance.deployments.installed import find_vllm  # noqa: E402
from acceptance.deployments.load import load_deployments, with_options  # noqa: E402
from acceptance.deployments.schema import Profile  # noqa: E402
from acceptance.rehearsal import overlay  # noqa: E402
from acceptance.secrets import Redactor  # noqa: E402
from acceptance.serving.launch import launch  # noqa: E402

if TYPE_CHECKING:
    from acceptance.serving.server import RunningServer

DEPLOYMENT = "rehearsal-tp-ep"
SPINS = " spinning"  # without the plugin cpu_waiting
BINDINGS = ("0|1", "nobind", f"0|1{SPINS}", f"nobind{SPINS}")  # the first is the shipped one
SHIPPED = overlay.ALWAYS
REQUESTS, TOKENS = 16, 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--bursts", type=int, default=10)
    asked = parser.parse_args()
    spread = {}
    print(
        f"{'binding':16} {'median s':>9} {'fastest':>8} {'slowest':>8} {'server CPU s':>13} client"
    )
    for binding in BINDINGS:
        took: list[float] = []
        cpu: list[tuple[float, float]] = []
        for _ in range(asked.starts):
            with tempfile.TemporaryDirectory() as folder:
                one(binding, Path(folder), asked.bursts, took, cpu)
        spread[binding] = max(took) / min(took)
        server, client = (statistics.median(column) for column in zip(*cpu, strict=True))
        print(
            f"{binding:16} {statistics.median(took):9.2f} {min(took):8.2f} {max(took):8.2f} "
            f"{server:13.2f} {client:6.2f}",
            flush=True,
        )
    shipped = spread[BINDINGS[0]]
    print("spread as ratio to the shipped binding's:", end=" ")
    print(", ".join(f"{name} {value / shipped:.2f}" for name, value in spread.items()))
    return 0


def one(
    binding: str, folder: Path, bursts: int, took: list[float], cpu: list[tuple[float, float]]
) -> None:
    """One server: a burst to warm up, then the bursts that count."""
    cores = binding.removesuffix(SPINS)
    overlay.ALWAYS = (overlay.EXPERT_MAP,) if binding.endswith(SPINS) else SHIPPED
    deployment = with_options(load_deployments()[DEPLOYMENT], [f"cpu_threads_bind={cores}"])
    server = launch(deployment, Profile.BENCHMARK, find_vllm(), folder, redactor=Redactor())
    assert server.custody is not None
    try:
        asyncio.run(burst(server))
        for _ in range(bursts):
            before, mine = spent(server.pids()), spent([os.getpid()])
            began = time.perf_counter()
            asyncio.run(burst(server))
            took.append(time.perf_counter() - began)
            cpu.append((spent(server.pids()) - before, spent([os.getpid()]) - mine))
    finally:
        server.custody.end(deployment.budgets.stop)


async def burst(server: RunningServer) -> None:
    """All requests at once, to the last answer."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with httpx.AsyncClient(base_url=server.base_url, headers=headers, timeout=120) as client:
        body = {
            "model": server.model,
            "prompt": "one two three",
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "temperature": 0,
        }
        asked = (client.post("/v1/completions", json=body) for _ in range(REQUESTS))
        for answer in await asyncio.gather(*asked):
            answer.raise_for_status()


def spent(pids: list[int]) -> float:
    """CPU seconds of processes until now."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids if psutil.pid_exists(pid))


if __name__ == "__main__":
    sys.exit(main())
