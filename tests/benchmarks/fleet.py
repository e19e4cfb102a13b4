"""A simulated fleet's wall time against one host's, and what the head takes as hosts grow.

    python tests/benchmarks/fleet.py [--hosts 4 16 64] [--runs FOLDER]

Needs Ray (docs/cluster.md) in the rehearsal's environment. One host is the ordinary run of the same
checks, without Ray. Fleets that are there already are counted and not repeated. Ratios are of one
machine in one call; memory is the driver's own, without Ray's processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from acceptance.cluster.record import read_fleet  # noqa: E402
from reports import fleetsimulated as simulated  # noqa: E402

DRIVER = """
import resource, sys
from reports.fleet import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as out:
    out.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))  # KiB
sys.exit(code)
"""
MEASURED = "measured.json"


def alone(folder: Path) -> float:
    """Seconds of one host's run."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", *simulated.words(), f"--run-dir={folder}"]
    subprocess.run(command, cwd=ROOT, check=False)
    return time.monotonic() - began


def fleet(count: int, folder: Path) -> dict[str, float]:
    """Seconds, peak MiB of the driver, exit code, and the hosts' CPU seconds and megabytes."""
    told = folder / MEASURED
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        words = ["--simulate", str(count), "--run-dir", str(folder)]
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(folder / "peak"), *words], cwd=ROOT, check=False
        )
        seconds = time.monotonic() - began
        hosts = read_fleet(folder).hosts.values()
        measured = {
            "seconds": round(seconds, 1),
            "mib": int((folder / "peak").read_text()) / 1024,
            "exit": done.returncode,
            "cpu": sum(one.cpu_seconds for one in hosts),
            "mb": sum(one.size for one in hosts) / 1e6,
        }
        told.write_text(json.dumps(measured), encoding="utf-8")
    found: dict[str, float] = json.loads(told.read_text(encoding="utf-8"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--runs", type=Path, help="where they are kept (default: nowhere)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as thrown_away:
        runs = (given.runs or Path(thrown_away)).resolve()
        runs.mkdir(parents=True, exist_ok=True)
        one = alone(Path(thrown_away) / "alone")
        found = {count: fleet(count, runs / f"fleet-{count}") for count in given.hosts}
    print(f"one host: {one:.0f} s; {simulated.at_once()} at once in a fleet")
    print("| hosts | wall | of one host | head's peak | CPU of the hosts | gathered | exit |")
    print("|---|---|---|---|---|---|---|")
    for count, seen in found.items():
        wall = f"{seen['seconds']:.0f} s | {seen['seconds'] / one:.1f}"
        rest = f"{seen['cpu']:.0f} s | {seen['mb']:.1f} MB | {seen['exit']:g}"
        print(f"| {count} | {wall} | {seen['mib']:.0f} MiB | {rest} |")
    first, last = (found[given.hosts[at]]["mib"] for at in (0, -1))
    print(f"head's memory, {given.hosts[-1]} hosts against {given.hosts[0]}: {last / first:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
