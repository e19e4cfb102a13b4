"""`python -m reports.fleet --cluster auto --deployment NAME…`: the ordinary acceptance on every
host of a Ray cluster at once, gathered here and judged as a fleet.

`--simulate N` makes N hosts of this machine, with sick ones planted among them (fleetsimulated.py).
`--resume DIR` goes on with a fleet: hosts without a whole run are run again. What pytest is given
besides is given to each host's.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.cluster.connect import AUTO, check_cluster, check_installed, connect
from acceptance.cluster.fleetrun import FleetRun
from acceptance.cluster.hosts import FleetHost, Need, eligible, need_of
from acceptance.cluster.record import FILE, FleetRecord, State, read_fleet
from acceptance.deployments.load import load_deployments, match
from acceptance.errors import AcceptanceError, InputError
from acceptance.fleet.thresholds import thresholds
from acceptance.load.copies import imported
from reports import fleetsimulated as simulated
from reports.fleethosts import hosts_of_record
from reports.fleetterminal import tell
from reports.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acceptance.fleet.fleet import Fleet

ROOT = Path(__file__).parents[1]
PAGE = "fleet.html"
OWN = ("--run-dir", "--resume", "--plan", "--base-url", "--calibrate", "--nodes")


def main(argv: Sequence[str]) -> int:
    """Runs what is asked for, judges all hosts and returns the exit status."""
    options, words = _parser().parse_known_args(argv)
    try:
        record = _record(options, words)
        hosts, ray = _hosts(options, record)
    except AcceptanceError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        _run(record, hosts, ray)
    except KeyboardInterrupt:
        print(f"ended; go on with --resume={record.folder}", file=sys.stderr)
        return 2
    finally:
        ray.shutdown()
    return _judge(record)


def _record(options: argparse.Namespace, words: list[str]) -> FleetRecord:
    """The fleet to run, its folder made. Raises InputError."""
    if options.resume is not None:
        record = read_fleet(options.resume.resolve())
        if words or options.deployment or options.run_dir or options.simulate:
            raise InputError(
                "a resumed fleet runs what it was asked to run, in its own folder",
                asked=f"--resume={options.resume}",
                hint=f"without other words; each host runs: {' '.join(record.words)}",
            )
        return record
    command = [sys.executable, "-m", "pytest"]
    if options.simulate is not None:
        if words or options.deployment:
            raise InputError(
                "a simulated fleet runs its own deployment and checks",
                asked=" ".join([f"--simulate {options.simulate}", *options.deployment, *words]),
            )
        simulated.check(options.simulate)
        check_installed(f"--simulate {options.simulate}")
        command += simulated.words()
    else:
        command += _asked(options, words)
    folder = (options.run_dir or _of_this_moment()).resolve()
    if (folder / FILE).exists():
        raise InputError(f"{folder} holds a fleet already", hint=f"--resume={folder}")
    folder.mkdir(parents=True, exist_ok=True)
    return FleetRecord(folder, tuple(command), options.simulate or 0)


def _asked(options: argparse.Namespace, words: Sequence[str]) -> list[str]:
    """What pytest is given on each host. Raises InputError."""
    if not options.deployment:
        raise InputError(
            "what each host is to serve is not named", hint="--deployment NAME, or more of them"
        )
    if wrong := [word for word in words if word.partition("=")[0] in OWN]:
        raise InputError(f"{', '.join(wrong)}: not for the hosts of a fleet")
    named = [f"--deployment={name}" for name in options.deployment]
    asked = [*named, *(f"--deployments={path}" for path in options.deployments), *words]
    _need(asked)
    check_cluster(options.cluster or AUTO)
    return asked


def _hosts(options: argparse.Namespace, record: FleetRecord) -> tuple[list[FleetHost], Any]:
    """The hosts that are still to run, and ray, connected. Raises InputError."""
    if record.simulated:
        hosts = simulated.hosts(record.simulated)
        wanted = _open(record, hosts)
        return wanted, simulated.cluster(hosts)
    need = _need(record.words)
    ray = connect(options.cluster or AUTO)
    hosts, passed_over = eligible(ray.nodes(), need)
    for line in passed_over:
        print(visible(line, 300), flush=True)
    if not hosts:
        ray.shutdown()
        raise InputError(
            f"no host of the cluster has {need.gpus} {need.kind or ''} GPUs".replace("  ", " ")
            if need.gpus
            else "no host of the cluster takes work",
            cause="; ".join(passed_over),
        )
    for name, entry in record.hosts.items():
        if entry.state is not State.DONE and name not in {host.name for host in hosts}:
            record.set(name, state=State.DROPPED, why="it is not in the cluster any more")
    return _open(record, hosts), ray


def _need(words: Sequence[str]) -> Need:
    """What hosts must have for a command: read from it, so that a resumed fleet asks the same."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--deployment", action="append", default=[])
    parser.add_argument("--deployments", action="append", default=[], type=Path)
    asked, _ = parser.parse_known_args(words)
    known = load_deployments(asked.deployments)
    return need_of([known[name] for name in match(known, asked.deployment)])


def _open(record: FleetRecord, hosts: Sequence[FleetHost]) -> list[FleetHost]:
    """Those without a whole run."""
    done = {name for name, entry in record.hosts.items() if entry.state is State.DONE}
    return [host for host in hosts if host.name not in done]


def _run(record: FleetRecord, hosts: Sequence[FleetHost], ray: Any) -> None:
    at_once = simulated.at_once() if record.simulated else len(hosts)
    apart = simulated.apart() if record.simulated else 0.0
    say = _sayer(time.monotonic())
    say(f"fleet: {len(hosts)} hosts to run, {min(at_once, len(hosts))} at once; {record.folder}")
    with ExitStack() as stack:
        env = stack.enter_context(imported()) if record.simulated else {}
        shared = [replace(host, env={**host.env, **env}) for host in hosts]
        FleetRun(ray, record, say, at_once, apart).run(shared)


def _sayer(began: float) -> Callable[[str], None]:
    def say(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{minutes:3}:{seconds:02}  {visible(line, 200)}", flush=True)

    return say


def _judge(record: FleetRecord) -> int:
    hosts = hosts_of_record(record, thresholds())
    runs = [record.run_of(name) for name in sorted(record.hosts)]
    page = record.folder / PAGE
    fleet: Fleet = tell(hosts, runs, page)
    print(f"report  {page}")
    if record.simulated and (wrong := simulated.missed(fleet, record.simulated)):
        print(wrong, file=sys.stderr)
        return 3
    return 0 if fleet.well else 1


def _of_this_moment() -> Path:
    name = datetime.now(UTC).strftime("fleet-%Y%m%d-%H%M%S")
    return ROOT / "reports" / "runs" / name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports.fleet",
        description="Run the acceptance on every host of a cluster, and judge the fleet.",
        epilog="What is not listed here is given to each host's pytest: --tier gate, and so on.",
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cluster", metavar="auto|ray://HOST:PORT", help="the Ray cluster")
    where.add_argument("--simulate", type=int, metavar="N", help="N made-up hosts of this machine")
    add = parser.add_argument
    add("--deployment", action="append", default=[], metavar="GLOB", help="what each host serves")
    add("--deployments", action="append", default=[], type=Path, metavar="DIR", help="a site's own")
    add("--run-dir", type=Path, metavar="DIR", help="where all of it goes")
    add("--resume", type=Path, metavar="DIR", help="run the hosts that have no whole run")
    return parser
