"""A simulated fleet's wall time against one host's, and what the head takes as hosts grow.

    python tests/benchmarks/fleet.py [--hosts 4 16 64] [--runs FOLDER]

Needs Ray (docs/cluster.md) in the rehearsal's environment. One host is the ordinary run of the same
checks, without Ray; with fleets that are kept it is kept too. Fleets that are there already are
counted and not repeated. Memory is the driver's own, and beside it that of Ray's two processes that
know of all hosts: peaks of what is resident, the latter looked at every two seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

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
RAYS = ("gcs_server", "raylet")  # of each cluster one, where all of it is one machine
LOOK = 2.0  # seconds


def alone(folder: Path) -> float:
    """Seconds of one host's run."""
    told = folder / MEASURED
    if not told.exists():
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", *simulated.words(), f"--run-dir={folder}"]
        subprocess.run(command, cwd=ROOT, check=False)
        told.write_text(json.dumps(time.monotonic() - began), encoding="utf-8")
    return float(json.loads(told.read_text(encoding="utf-8")))


def rays_mib(driver: int) -> float:
    """MiB that Ray's own processes below the driver hold."""
    held = 0
    with suppress(psutil.Error):
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.Error):
                held += process.memory_info().rss if process.name() in RAYS else 0
    return held / (1 << 20)


def fleet(count: int, folder: Path) -> dict[str, float]:
    """Seconds, peak MiB of the driver and of Ray, exit code, and the hosts' CPU seconds and
    megabytes."""
    told = folder / MEASURED
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        words = ["--simulate", str(count), "--run-dir", str(folder)]
        command = [sys.executable, "-c", DRIVER, str(folder / "peak"), *words]
        rays = 0.0
        with subprocess.Popen(command, cwd=ROOT) as driver:
            while driver.poll() is None:
                rays = max(rays, rays_mib(driver.pid))
                time.sleep(LOOK)
        seconds = time.monotonic() - began
        hosts = read_fleet(folder).hosts.values()
        measured = {
            "seconds": round(seconds, 1),
            "mib": int((folder / "peak").read_text()) / 1024,
            "rays": rays,
            "exit": driver.returncode,
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
        one = alone(runs / "alone")
        found = {count: fleet(count, runs / f"fleet-{count}") for count in given.hosts}
    print(f"one host: {one:.0f} s; {simulated.at_once()} at once in a fleet")
    print("| hosts | wall | of one host | head | Ray | CPU of the hosts | gathered | exit |")
    print("|---|---|---|---|---|---|---|---|")
    for count, seen in found.items():
        wall = f"{seen['seconds']:.0f} s | {seen['seconds'] / one:.1f}"
        rest = f"{seen['cpu']:.0f} s | {seen['mb']:.1f} MB | {seen['exit']:g}"
        held = f"{seen['mib']:.0f} MiB | {seen['rays']:.0f} MiB"
        print(f"| {count} | {wall} | {held} | {rest} |")
    least, most = min(found), max(found)
    for name, who in (("mib", "head"), ("rays", "Ray")):
        ratio = found[most][name] / found[least][name]
        print(f"memory of {who}, {most} hosts against {least}: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
