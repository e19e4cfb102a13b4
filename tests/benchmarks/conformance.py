"""What the conformance and correctness checks cost beside their requests.

    python tests/benchmarks/conformance.py [--deployment rehearsal-dp-ep] [--out FILE] [TEST...]

Runs both areas against one server of the deployment, and holds their wall time, from the server's
readiness to the end of the last check, against the time that the server itself spent on their
requests (vllm:e2e_request_latency_seconds, summed over engines). Requests that do not interfere run
at the same time, so a ratio far below 1 is possible; what a ratio above 1 shows is waiting, work of
our own, and processes that ask no server (transformers, lm-eval's start). Run it with the
rehearsal's Python, which has vLLM: .tox/rehearsal/bin/python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parents[2]
TARGET = 1.3
OUT = "CONFORMANCE_BENCHMARK_OUT"
LATENCY = "vllm:e2e_request_latency_seconds_sum"
COUNT = "vllm:e2e_request_latency_seconds_count"


class Watch:
    """A plugin of the run that is measured. Its own work, a reading of /metrics for each test, is
    taken out of the wall time."""

    def __init__(self) -> None:
        self.server: Any = None
        self.ready = self.ended = self.own = 0.0
        self.tests: list[dict[str, Any]] = []
        self._before: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        made = yield
        if fixturedef.argname == "server":
            self.server, self.ready = made, time.perf_counter()
            self._before = self._read()
        return made

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Before anything is torn down: the last one ends the server."""
        if self.server is None:
            return
        now = self._read()
        names = ("wall", "service", "requests")
        spent = {n: b - a for n, a, b in zip(names, self._before, now, strict=True)}
        self.tests.append({"test": item.nodeid, **spent})
        self._before, self.ended = now, now[0]

    def pytest_sessionfinish(self) -> None:
        told = {
            "wall": self.ended - self.ready,
            "service": sum(test["service"] for test in self.tests),
            "requests": sum(test["requests"] for test in self.tests),
            "tests": self.tests,
        }
        Path(os.environ[OUT]).write_text(json.dumps(told))

    def _read(self) -> tuple[float, float, float]:
        """Seconds so far without those spent here, seconds of requests, requests."""
        begun = time.perf_counter()
        totals = {LATENCY: 0.0, COUNT: 0.0}
        try:
            text = httpx.get(f"{self.server.base_url}/metrics", timeout=10).text
        except httpx.HTTPError:
            return begun - self.own, self._before[1], self._before[2]
        for line in text.splitlines():
            name = line.partition("{")[0]
            if name in totals:
                totals[name] += float(line.rpartition(" ")[2])
        self.own += time.perf_counter() - begun
        return time.perf_counter() - self.own, totals[LATENCY], totals[COUNT]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deployment", default="rehearsal-dp-ep")
    parser.add_argument("--out", type=Path, default=Path("conformance-benchmark.json"))
    parser.add_argument("tests", nargs="*", default=["suites/conformance", "suites/correctness"])
    given = parser.parse_args()
    out = given.out.resolve()
    command = [sys.executable, str(Path(__file__).resolve()), "--measured", given.deployment]
    env = {**os.environ, "PYTHONPATH": str(ROOT), OUT: str(out)}
    code = subprocess.run([*command, *given.tests], cwd=ROOT, env=env, check=False).returncode
    told = json.loads(out.read_text())
    ratio = told["wall"] / told["service"] if told["service"] else float("inf")
    for test in sorted(told["tests"], key=lambda t: t["service"] - t["wall"])[:12]:
        beside = test["wall"] - test["service"]
        print(f"{test['wall']:7.2f} s  beside requests {beside:+7.2f} s  {test['test'][7:90]}")
    print(
        f"{len(told['tests'])} checks, {told['requests']:.0f} requests: wall {told['wall']:.1f} s, "
        f"service {told['service']:.1f} s, ratio {ratio:.2f} (target {TARGET})"
    )
    return code or int(ratio > TARGET)


def measured(deployment: str, tests: list[str]) -> int:
    """The run itself, in a process of its own."""
    arguments = ["--deployment", deployment, "--tier", "smoke", "-q", "-p", "no:cacheprovider"]
    return int(pytest.main([*arguments, *tests], plugins=[Watch()]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measured"]:
        sys.exit(measured(sys.argv[2], sys.argv[3:]))
    sys.exit(main())
