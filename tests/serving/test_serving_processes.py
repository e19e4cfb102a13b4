"""Finding a server's processes, and telling who was left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from serving_world import lives, until

from acceptance.serving.processes import (
    MARK,
    OWNER,
    cpu_seconds,
    kill,
    leftovers,
    marked,
    terminate,
    this_process,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINE, OTHER = f"mine-{os.getpid()}", f"other-{os.getpid()}"
NOBODY = 2**22 + 1  # Linux gives no process so high a pid
SLEEP = "import time; time.sleep(600)"
DETACHED = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n{SLEEP}"
WIPED = """
import ctypes, os, time
if os.fork() == 0:
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    ctypes.memset(int(fields[47]), 0, int(fields[48]) - int(fields[47]))
    print("wiped", flush=True)
time.sleep(600)
"""
BUSY = "import time\nwhile time.process_time() < {}: pass"
CHILDREN = f"""
import subprocess, sys, time
for _ in range(4): subprocess.run([sys.executable, "-S", "-c", {BUSY.format(0.1)!r}], check=True)
print("done", flush=True)
time.sleep(600)
"""


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """run(code, mark=..., owner=...): a Python process. It and its children end with the test."""
    started: list[subprocess.Popen[str]] = []

    def running(code: str, mark: str = MINE, owner: str = "") -> subprocess.Popen[str]:
        env = {**os.environ, MARK: mark, OWNER: owner or this_process()}
        command = [sys.executable, "-S", "-c", code]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield running
    for process in started:
        kill([p for name in (MINE, OTHER) for p in marked(name)])
        process.kill()
        process.communicate()


def test_whoever_carries_the_mark_is_found_wherever_it_went(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    """A session of its own and a parent that is gone hide nobody; another mark is another's."""
    run(DETACHED).wait()
    other = run(SLEEP, mark=OTHER)
    assert until(lambda: len(marked(MINE)) == 1)
    assert marked(MINE)[0].pid != other.pid
    assert [process.pid for process in marked(OTHER)] == [other.pid]


def test_a_process_that_lost_its_environment_is_found_below_one_that_did_not(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    parent = run(WIPED)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "wiped\n"
    child = psutil.Process(parent.pid).children()[0]
    assert MARK.encode() not in Path(f"/proc/{child.pid}/environ").read_bytes()
    assert {process.pid for process in marked(MINE)} == {parent.pid, child.pid}


def test_everything_below_the_warden_belongs_and_the_warden_does_not(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    warden = run(WIPED, mark=OTHER)
    assert warden.stdout is not None
    warden.stdout.readline()
    child = psutil.Process(warden.pid).children()[0]
    assert [process.pid for process in marked(MINE, warden.pid)] == [child.pid]
    assert marked(MINE, NOBODY) == []


def test_what_nobody_has_waited_for_is_gone(run: Callable[..., subprocess.Popen[str]]) -> None:
    ended = run("")
    assert until(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE)
    assert marked(MINE) == []


def test_leftovers_are_those_whose_owner_is_gone_and_nobody_touches_them(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    """An owner is gone when its pid is, when another process has it now, and when it is a zombie.
    What is no owner at all is nobody's either."""
    zombie = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ticks = Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
    gone = [f"{NOBODY}:1", f"{os.getpid()}:1", f"{zombie.pid}:{ticks}", f"{NOBODY}:", "?", ":"]
    alone = {run(SLEEP, owner=owner).pid for owner in gone}
    run(SLEEP)  # whose owner lives
    assert until(lambda: len(marked(MINE)) == len(gone) + 1)
    found = {left.pid: left for left in leftovers() if left.mark == MINE}
    assert set(found) == alone
    assert all("time.sleep(600)" in left.command for left in found.values())
    assert all(lives(psutil.Process(pid)) for pid in alone)
    zombie.wait()


def test_cpu_time_counts_work_and_not_waiting(run: Callable[..., subprocess.Popen[str]]) -> None:
    busy, idle = run(BUSY.format(600)), run(SLEEP)
    assert until(lambda: cpu_seconds([psutil.Process(busy.pid)]) > 0.3)
    assert cpu_seconds([psutil.Process(idle.pid)]) < 0.3


def test_cpu_time_counts_children_that_have_ended(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    """A compiler run is over between two looks, and is work all the same."""
    parent = run(CHILDREN)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "done\n"
    assert cpu_seconds([psutil.Process(parent.pid)]) > 0.3


def test_processes_that_are_gone_disturb_nobody(run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run(SLEEP)
    known = psutil.Process(process.pid)
    process.kill()
    process.wait()
    terminate([known])
    kill([known])
    assert cpu_seconds([known]) == 0
