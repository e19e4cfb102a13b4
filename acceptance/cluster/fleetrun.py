"""Runs one command on every host of a fleet, each in the care of an agent there, and gathers what
they leave. A host that drops out is told with the reason, and stops nobody else."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from acceptance.cluster.carry import Mark, receive
from acceptance.cluster.hostrun import ROOT, HostAgent
from acceptance.cluster.record import State
from acceptance.cluster.remote import ANSWER, RemoteCare
from acceptance.cluster.seats import NodeAgent
from acceptance.errors import AcceptanceError, ServerError
from acceptance.serving.launcher import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from acceptance.cluster.hosts import FleetHost
    from acceptance.cluster.record import FleetRecord

STARTED = 180.0  # seconds in which a host must have room, and its agent must answer
GRACE = 20.0  # seconds that a command gets to end by itself when it is told to
GATHERED = 4  # hosts whose folders are carried at once: what the driver holds of them is bounded
LOOK = 0.5  # seconds between two looks at a host
QUIET = 30.0  # seconds between two lines about a host that say how far it is
DIES_AFTER = 1.0  # CPU seconds after which a host that is planted to drop out does
TAIL = 4096  # bytes of a log's end in which its last line is looked for
TELLING = re.compile(r"[^\W\d_]{3}")  # a line that is not only dots and figures


class FleetRun:
    """ray: the module, connected. record: is kept up to date. say: is given each line of progress.
    at_once: hosts that run together. apart: seconds from the begin of one to that of the next."""

    def __init__(
        self,
        ray: Any,
        record: FleetRecord,
        say: Callable[[str], None],
        at_once: int,
        apart: float = 0.0,
    ) -> None:
        self._ray, self._record, self._say = ray, record, say
        self._at_once, self._apart = at_once, apart
        self._beginning, self._next = threading.Lock(), 0.0
        self._stopped = threading.Event()
        self._gathering = threading.Semaphore(GATHERED)

    def run(self, hosts: Sequence[FleetHost]) -> None:
        """Blocks until each has run or dropped out. Whatever ends it ends the hosts' commands."""
        for host in hosts:
            self._record.set(host.name, address=host.address, state=State.WAITING, why="")
        if not hosts:
            return
        with ThreadPoolExecutor(min(self._at_once, len(hosts))) as pool:
            try:
                list(pool.map(self._whole, hosts))
            finally:
                self._stopped.set()

    def _whole(self, host: FleetHost) -> None:
        with self._beginning:
            if self._stopped.wait(max(0.0, self._next - time.monotonic())):
                return
            self._next = time.monotonic() + self._apart
        began = time.monotonic()
        self._record.set(host.name, state=State.RUNNING)
        try:
            self._one(host)
        except (AcceptanceError, OSError, self._ray.exceptions.RayError) as error:
            why = _first(error)
            self._record.set(
                host.name, state=State.DROPPED, why=why, seconds=time.monotonic() - began
            )
            self._say(f"{host.name}: dropped out: {why}")
            return
        entry = self._record.set(
            host.name, state=State.DONE, seconds=round(time.monotonic() - began, 1)
        )
        ended = sum(one.state in (State.DONE, State.DROPPED) for one in self._record.hosts.values())
        self._say(
            f"{host.name}: ended with exit code {entry.code} after {entry.seconds:.0f} s, "
            f"{entry.size / 1e6:.1f} MB gathered; {ended} of {len(self._record.hosts)}"
        )

    def _one(self, host: FleetHost) -> None:
        """Raises what made the host drop out."""
        agent = self._agent(host)
        try:
            about = self._ray.get(agent.about.remote(0), timeout=STARTED)
            log = self._record.log_of(host.name)
            log.parent.mkdir(parents=True, exist_ok=True)
            note = f"acceptance: {host.name} is {about.host} at {about.address}"
            care = RemoteCare(self._ray, agent, about, self._part(host, log), note)
        except self._ray.exceptions.GetTimeoutError as error:
            self._ray.kill(agent)
            raise ServerError(
                f"it had no room, or its agent did not start, within {STARTED:.0f} s",
                hint="the suite and its environment must be on every host, at the same paths",
            ) from error
        except BaseException:
            self._ray.kill(agent)
            raise
        try:
            used = self._attend(host, agent, care)
            with self._gathering:
                size = self._gather(agent, host)
            self._record.set(host.name, code=care.exit_code, cpu_seconds=round(used, 1), size=size)
        finally:
            care.end(GRACE)

    def _agent(self, host: FleetHost) -> Any:
        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": host.gpus,
            "resources": dict(host.resources),
            "max_concurrency": 4,  # to be asked for news while it hands its folder over
        }
        if host.node:
            strategies = self._ray.util.scheduling_strategies
            options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(
                host.node, soft=False
            )
        return self._ray.remote(_HostActor).options(**options).remote()

    def _part(self, host: FleetHost, log: Path) -> Part:
        words = ("-m", "acceptance.cluster.hostrun", *self._record.words, "--run-dir=")
        env = {"PYTHONPATH": str(ROOT), **host.env}
        mark = f"{self._record.folder}/{host.name}"
        return Part((sys.executable, *words), env, log, mark)

    def _attend(self, host: FleetHost, agent: Any, care: RemoteCare) -> float:
        """Blocks until the command has ended, and tells how far it is; CPU seconds that it was seen
        to have used. Raises ServerError where it is lost."""
        told, due, used = "", 0.0, 0.0
        while not care.exited:
            used = max(used, care.cpu_seconds())
            if self._stopped.wait(LOOK):
                raise ServerError("the fleet was ended before it")
            line = last_line(care.log)
            if line != told and time.monotonic() >= due:
                self._say(f"{host.name}: {line}")
                told, due = line, time.monotonic() + QUIET
            if host.dies and used > DIES_AFTER:
                self._ray.kill(agent)
        if care.lost or care.exit_code is None:
            raise ServerError(care.fate)
        return used

    def _gather(self, agent: Any, host: FleetHost) -> int:
        """Brings the host's folder here; bytes. All of it, or none. Raises ServerError where the
        command left no record."""
        folder = self._record.run_of(host.name)
        partly = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(partly, ignore_errors=True)
        partly.mkdir(parents=True)
        mark: Mark | None = Mark()
        size = 0
        while mark is not None:
            received = self._ray.get(agent.hand_over.remote(mark), timeout=ANSWER)
            size += receive(received, partly)
            mark = received.after
        if not size:
            partly.rmdir()
            raise ServerError(f"it left no results: {last_line(self._record.log_of(host.name))}")
        partly.rename(folder)
        return size


class _HostActor(HostAgent, NodeAgent):
    """As an actor."""


def last_line(log: Path) -> str:
    """The last line of a log that says something; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if TELLING.search(line)), "")


def _first(error: Exception) -> str:
    """One line that says what happened."""
    if isinstance(error, AcceptanceError):
        return f"{error.happened}: {error.cause}" if error.cause else error.happened
    told = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {told}"
