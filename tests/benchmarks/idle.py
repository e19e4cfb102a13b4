"""How much of the time that servers are ready is neither warm-up nor measured window.

    python tests/benchmarks/idle.py RUN...

RUN: directories of finished runs, as of `pytest suites/performance --deployment 'simulated-*'
--tier full`. Ready is from the record that a server is ready to the one that it is stopped. What is
left over holds the import of the client, scraping, judging, writing, cool-downs and the stop.
Target: under 3 % of a simulated full matrix.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = 0.03


def main(runs: list[str]) -> int:
    ready = used = 0.0
    for run in map(Path, runs):
        for deployment, (begin, end) in served(run).items():
            warm, windows, takes = spent(run, deployment)
            share = 1 - (warm + windows) / (end - begin)
            print(
                f"{deployment}: ready {end - begin:.1f} s, {takes} runs of cells, "
                f"warm-up {warm:.1f} s, windows {windows:.1f} s, idle {share:.1%}"
            )
            ready += end - begin
            used += warm + windows
    if not ready:
        print("no server was ready in these runs", file=sys.stderr)
        return 2
    idle = 1 - used / ready
    print(f"idle share {idle:.4f} of {ready:.0f} s (target: under {TARGET})")
    return 0


def served(run: Path) -> dict[str, tuple[float, float]]:
    """Deployment to when its benchmark server was ready and when it had stopped, in seconds."""
    began: dict[str, float] = {}
    spans: dict[str, tuple[float, float]] = {}
    for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        if row["type"] != "server" or row["profile"] != "benchmark":
            continue
        name = row["deployment"]
        if row["outcome"] == "ready":
            began[name] = row["time"]
        elif name in began:
            spans[name] = (began.pop(name), row["time"])
    return spans


def spent(run: Path, deployment: str) -> tuple[float, float, int]:
    """Seconds of warm-up, seconds of measured windows, and how many runs of cells."""
    warm: dict[tuple[str, int], float] = {}
    windows, takes = 0.0, 0
    for file in sorted((run / "cells").glob(f"{deployment}.*run.json")):
        take: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        warm[take["cell"]["id"], take["attempt"]] = sum(take["warmup"]["waves"])
        windows += take["window"]["end"] - take["window"]["start"]
        takes += 1
    return sum(warm.values()), windows, takes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
