"""`python -m reports.fleet RUN RUN…`: a fleet of like hosts from their run directories.

One run is one host. Each keeps the verdict of its own run; besides, hosts are held against one
another, and those that stand out from their peers are named, even where each passes alone.
With --cluster, --simulate or --resume the hosts are run first (fleetstart.py); the folder of such a
fleet stands for all of its hosts. Exit status: 0 when all are well, 1 when a host is REJECTED,
INCOMPLETE or stands out, or there are too few to tell, 2 when the arguments are not understood or
no run holds a record.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.cluster.record import FILE, read_fleet
from acceptance.fleet.thresholds import thresholds
from reports.compare import folder_of
from reports.fleethosts import hosts_of, hosts_of_record
from reports.fleetterminal import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

STARTING = ("--cluster", "--simulate", "--resume")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the fleet and returns the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if any(word.partition("=")[0] in STARTING for word in words):
        from reports.fleetstart import main as start  # here: judging needs none of it

        return start(words)
    options = _parser().parse_args(words)
    runs: list[Path] = options.runs
    if problem := _refused(runs, options.html):
        print(problem, file=sys.stderr)
        return 2
    if len(runs) == 1 and (runs[0] / FILE).is_file():
        record = read_fleet(runs[0])
        runs = [record.run_of(name) for name in sorted(record.hosts)]
        hosts = hosts_of_record(record, thresholds())
    else:
        hosts = hosts_of(runs, thresholds())
    if all(host.verdict is None for host in hosts):
        for host in hosts:
            print(f"{host.name}: {host.torn[0]}", file=sys.stderr)
        return 2
    return 0 if tell(hosts, runs, options.html).well else 1


def _refused(runs: Sequence[Path], html: Path | None) -> str:
    """What is wrong with the arguments; empty when nothing is."""
    folders = list(map(folder_of, runs))
    there = [folder for folder, run in zip(folders, runs, strict=True) if run.exists()]
    if twice := next((folder for folder in there if there.count(folder) > 1), None):
        return f"{twice} is named twice: one run is one host"
    if html is not None and not html.resolve().parent.is_dir():
        return f"--html {html}: its folder does not exist"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports.fleet", description="Judge a fleet of like hosts by their runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="one of each host")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
