"""Finding the processes of a server, whatever became of their parents.

vLLM's engine and workers outlive a killed API server (vllm#55510) and rename themselves
(vllm#34816), so names do not find them. They inherit the environment: every server carries MARK
there, and membership is read from /proc. Renaming overwrites that memory unless SPT_NOENV is set,
so descendants count too: of marked processes, and of the warden, to whom orphans come.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "ACCEPTANCE_SERVER"  # must not start with VLLM_: vLLM warns of unknown VLLM_ variables
KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}  # for setproctitle, with which vLLM renames its processes
OWNER = "ACCEPTANCE_OWNER"  # pid:start time of the process the server was started for


@dataclass(frozen=True)
class Leftover:
    """A process of a server whose owner is gone. command: its command line, shortened."""

    pid: int
    mark: str
    command: str


def marked(mark: str, warden: int | None = None) -> list[psutil.Process]:
    """Every living process that carries this mark or descends from one that does, zombies left
    out. warden: pid of its warden, whose descendants all belong, itself not."""
    found = {process.pid: process for process, name in _all_marked() if name == mark}
    roots = [*found.values()]
    if warden is not None:
        with contextlib.suppress(psutil.Error):
            roots.append(psutil.Process(warden))
    for root in roots:
        with contextlib.suppress(psutil.Error):
            for child in root.children(recursive=True):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found[child.pid] = child
    return list(found.values())


def leftovers() -> list[Leftover]:
    """Processes of earlier servers whose owner no longer lives. They are reported, never killed:
    they may be somebody's evidence."""
    found = []
    for process, mark in _all_marked():
        owner = _environment(process.pid).get(OWNER, "")
        if not _lives(owner):
            with contextlib.suppress(psutil.Error):
                found.append(Leftover(process.pid, mark, " ".join(process.cmdline())[:160]))
    return found


def this_process() -> str:
    """The value of OWNER for servers started by this process."""
    return f"{os.getpid()}:{_start_ticks(os.getpid())}"


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """CPU seconds used so far by these processes together, and by children of theirs that have
    ended (a compiler run is over between two looks). Vanished ones count nothing."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += float(times.user + times.system + times.children_user + times.children_system)
    return total


def terminate(processes: list[psutil.Process]) -> None:
    """SIGTERM to each; those already gone are fine."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to each; those already gone are fine."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _all_marked() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter():
        mark = _environment(process.pid).get(MARK)
        if mark is None or process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process, mark


def _environment(pid: int) -> dict[str, str]:
    """MARK and OWNER of a process; empty for processes of other users and those that ended."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    wanted = {}
    for item in raw.split(b"\0"):
        name, _, value = item.partition(b"=")
        if name.decode("ascii", "replace") in (MARK, OWNER):
            wanted[name.decode("ascii")] = value.decode("utf-8", "replace")
    return wanted


def _start_ticks(pid: int) -> str:
    """Start time in clock ticks: tells a process from a later one that got the same pid. Empty
    for one that has ended, waited for or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def _lives(owner: str) -> bool:
    pid, _, ticks = owner.partition(":")
    return pid.isdecimal() and ticks != "" and _start_ticks(int(pid)) == ticks
