"""A run that is broken off by a signal, what that left behind, and how the run goes on."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import survival_site as site
from survival_left import (
    free,
    left_behind,
    listening,
    lives,
    not_intact,
    shared_by,
    tagged,
)
from survival_world import ALONE, BESIDE, LIMIT, Running, World, recorded

from reports.digest import REPORT
from reports.history import history
from reports.reading import read_results
from reports.ruling import verdict_of
from reports.sessions import done

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

GONE = 15.0  # seconds from the end of its owner within which everything must be gone
CELLS = 3  # of one deployment


@dataclass(frozen=True)
class Kill:
    """What is done to which process. name: of a row. signals: sent a moment apart; none closes the
    terminal. words: of the run's command line."""

    name: str
    target: str
    signals: tuple[int, ...]
    words: tuple[str, ...] = ALONE


def _rows() -> tuple[Kill, ...]:
    int_, term, kill, hup = signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP
    whole = {"SIGKILL": (kill,), "SIGTERM": (term,), "SIGINT": (int_,), "SIGINT twice": (int_,) * 2}
    whole |= {"SIGHUP": (hup,), "terminal closed": ()}
    part = {"SIGKILL": (kill,), "SIGTERM": (term,), "SIGINT": (int_,), "SIGHUP": (hup,)}
    rows = [Kill(f"pytest: {name}", "pytest", sent) for name, sent in whole.items()]
    for target in ("xdist worker", "warden", "bench worker"):
        words = BESIDE if target == "xdist worker" else ALONE
        rows += [Kill(f"{target}: {name}", target, sent, words) for name, sent in part.items()]
    return tuple(rows)


ROWS = _rows()


@dataclass
class Found:
    """What one kill left. wrong: what should not be, empty when all is well. word: the verdict of
    the run as it stood, resumed: after it had gone on. at: lines that its record had (for the
    bench worker: cells that were begun), and the fraction of a second that then passed. seconds:
    until nothing was left."""

    kill: str
    at: float
    hit: str = ""
    seconds: float = 0.0
    word: str = ""
    resumed: str = ""
    kept: int = 0
    wrong: list[str] = field(default_factory=list)


def break_off(world: World, kill: Kill, lines: int, draw: random.Random) -> Found:
    """One run: killed less than a second after its record had some random number of lines below
    `lines`, looked at, and resumed. The bench worker mostly waits, so it is killed less than half a
    second after some cell was begun."""
    run_dir = world.new()
    cells = kill.target == "bench worker"
    after = draw.randrange(CELLS if cells else lines)
    more = round(draw.uniform(0, 0.4 if cells else 0.8), 2)
    found = Found(kill.name, after + more)
    shared: set[Path] = set()
    running = world.start(
        run_dir, *kill.words, "--run-dir", str(run_dir), terminal=not kill.signals
    )
    if not cells:
        _wait(lambda: recorded(run_dir) > after, running)
        _wait(lambda: False, running, more)
    victim = _victim(kill, running, draw)
    if victim is not None:
        tree = _tree(victim)
        ports = listening(run_dir)
        shared = shared_by(run_dir)
        if cells:
            _wait(lambda: begun(run_dir) > after, running)
            _wait(lambda: False, running, more)
        found.hit = " ".join(victim.cmdline()).strip()[-80:] if lives(victim) else ""
        _send(kill, victim, running)
        began = time.monotonic()
        if kill.target == "pytest":
            running.wait()
            began = time.monotonic()
            found.seconds = _gone(lambda: list(tagged(run_dir)), began, found)
        elif signal.SIGKILL in kill.signals or not victim.is_running():
            found.seconds = _gone(lambda: [p for p in tree if lives(p)], began, found)
    running.wait()
    _gone(lambda: list(tagged(run_dir)), time.monotonic(), found)
    if victim is not None:
        found.wrong += [f"port {port} is taken" for port in ports if not free(port)]
    found.wrong += left_behind(run_dir, running.temp, shared)
    results = read_results(run_dir)
    found.word = verdict_of(results).word
    found.wrong += not_intact(run_dir, results)
    kept = done(results.records)
    measured = _measured(run_dir)
    whole = _whole_cells(kept, kill.words)
    again = world.start(run_dir, *kill.words, f"--resume={run_dir}")
    again.wait()
    _gone(lambda: list(tagged(run_dir)), time.monotonic(), found)
    resumed = read_results(run_dir)
    found.kept, found.resumed = len(kept), verdict_of(resumed).word
    found.wrong += left_behind(run_dir, again.temp, shared)
    found.wrong += [str(problem) for problem in resumed.problems]
    if len(history(resumed)) != 2 or "from 2 sessions" not in (run_dir / REPORT).read_text("utf-8"):
        found.wrong.append("the report does not tell of two sessions")
    twice = [c for c in whole if _measured(run_dir).count(c) != measured.count(c)]
    found.wrong += [f"{cell} was measured again" for cell in twice]
    return found


def begun(run_dir: Path) -> int:
    """Cells that the benchmark client was told to measure so far."""
    return len(list((run_dir / "cells").glob("*.*.client.log")))


def _wait(what: Callable[[], bool], running: Running, seconds: float = LIMIT) -> None:
    limit = time.monotonic() + seconds
    while not what() and running.process.poll() is None and time.monotonic() < limit:
        running.read()
        time.sleep(0.02)


def _victim(kill: Kill, running: Running, draw: random.Random) -> psutil.Process | None:
    """One process of the kind that is killed; waits for the next one when there is none now."""
    if kill.target == "pytest":
        return psutil.Process(running.process.pid) if running.process.poll() is None else None
    words = {
        "xdist worker": ("exec(eval(", "[pytest-xdist "),  # which renames itself in a test
        "warden": ("serving.warden",),
        "bench worker": ("bench_worker",),
    }
    while running.process.poll() is None:
        running.read()
        found = []
        for process in tagged(running.run_dir):
            with suppress(psutil.Error):
                said = " ".join(process.cmdline())
                if any(word in said for word in words[kill.target]):
                    found.append(process)
        if found:
            return draw.choice(sorted(found, key=lambda process: process.pid))
        time.sleep(0.02)
    return None


def _tree(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def _send(kill: Kill, victim: psutil.Process, running: Running) -> None:
    if not kill.signals:
        running.close_terminal()
    for number in kill.signals:
        with suppress(psutil.Error):
            victim.send_signal(number)
        time.sleep(0.3 if len(kill.signals) > 1 else 0)


def _gone(left: Callable[[], list[psutil.Process]], began: float, found: Found) -> float:
    """Seconds until nothing was left; what stays longer than GONE is noted, and killed."""
    while processes := left():
        if time.monotonic() - began > GONE:
            for process in processes:
                with suppress(psutil.Error):
                    found.wrong.append(f"still there: {' '.join(process.cmdline())[:120]}")
                    process.kill()
            break
        time.sleep(0.05)
    return round(time.monotonic() - began, 2)


def _measured(run_dir: Path) -> list[str]:
    """Cells in the order in which they were measured, once for each time."""
    path = run_dir / "cells" / "measured.txt"
    names = path.read_text().split() if path.exists() else []
    return [".".join(name.split(".")[:2]) for name in names]


def _whole_cells(kept: frozenset[str], words: tuple[str, ...]) -> list[str]:
    """Cells both of whose tests are kept, as `deployment.cell`."""
    told = [name.partition("[")[2].rstrip("]") for name in kept if "test_cells" in name]
    cells = []
    for name in set(told):
        deployment = next(d for d in site.DEPLOYMENTS if name.startswith(d))
        if told.count(name) == 2:
            cells.append(f"{deployment}.{name.removeprefix(deployment + '-')}")
    return cells


def as_json(found: Found) -> str:
    return json.dumps(vars(found))
