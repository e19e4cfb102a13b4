"""A run of the small project that is broken off by a signal, what that left behind, and how the run
goes on. Every process of a run carries TAG in its environment, whoever started it."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import survival_site as site

from reports.reading import Results, read_results
from reports.ruling import verdict_of
from reports.schema import JudgementRecord
from reports.sessions import done

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from acceptance.judging.verdict import RunVerdict

TAG = "SURVIVAL_RUN"
GONE = 15.0  # seconds from the end of its owner within which everything must be gone
CELLS = 3  # of one deployment
LIMIT = 180.0  # seconds: a run that hangs fails
ALONE = ("--deployment", site.DEPLOYMENTS[0])
BESIDE = ("--deployment", "survival-*", "-n", "2")


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


class World:
    """Runs of the project, each in a directory of its own below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = site.build(folder)
        self.runs = 0
        self._lock = threading.Lock()

    def start(
        self, run_dir: Path, *words: str, terminal: bool = False, room: int = 0, clock: str = ""
    ) -> Running:
        """room: bytes that a file may have. clock: `back` for one that jumps."""
        temp = run_dir.with_name(f"{run_dir.name}.tmp")
        temp.mkdir(exist_ok=True)
        dropped = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")
        env = {name: value for name, value in os.environ.items() if name not in dropped}
        env |= {
            "PYTHONPATH": site.path_of(self.folder),
            "CUDA_VISIBLE_DEVICES": "",
            "ACCEPTANCE_CACHE": str(self.folder / "cache"),
            "TMPDIR": str(temp),
            TAG: str(run_dir),
            "SPT_NOENV": "1",  # or workers of xdist lose TAG when they rename themselves
            "SURVIVAL_CLOCK": clock,
        }
        return Running(self, run_dir, temp, site.words(*words), env, terminal, room)

    def new(self) -> Path:
        with self._lock:
            self.runs += 1
            return self.folder / f"run{self.runs}"

    def end(self) -> None:
        """Kills what any run of it left."""
        for number in range(1, self.runs + 1):
            kill_all(self.folder / f"run{number}")


class Running:
    """A run in a session of its own. terminal: with a terminal to close."""

    def __init__(
        self,
        world: World,
        run_dir: Path,
        temp: Path,
        words: list[str],
        env: dict[str, str],
        terminal: bool,
        room: int,
    ) -> None:
        self.run_dir, self.temp = run_dir, temp
        self.out = run_dir.with_suffix(".out")
        self.master = -1
        with self.out.open("ab") as out:
            slave = -1
            if terminal:
                self.master, slave = os.openpty()
            self.process = subprocess.Popen(
                words,
                cwd=world.site,
                env=env,
                stdin=slave if terminal else subprocess.DEVNULL,
                stdout=slave if terminal else out,
                stderr=slave if terminal else subprocess.STDOUT,
                start_new_session=not terminal,
                preexec_fn=lambda: _prepare(slave, room),
            )
            if terminal:
                os.close(slave)

    def wait(self) -> int:
        """Its exit code. Raises TimeoutExpired, with everything of it killed."""
        limit = time.monotonic() + LIMIT
        while self.process.poll() is None:
            self.read()
            if time.monotonic() > limit:
                kill_all(self.run_dir)
                raise subprocess.TimeoutExpired(self.process.args, LIMIT)
            time.sleep(0.02)
        return self.process.returncode

    def read(self) -> None:
        """Takes what the terminal shows, or its other side would wait."""
        while self.master >= 0 and _readable(self.master):
            with suppress(OSError):
                if os.read(self.master, 1 << 16):
                    continue
            break

    def close_terminal(self) -> None:
        os.close(self.master)
        self.master = -1


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
        found.hit = " ".join(victim.cmdline()).strip()[-80:] if _lives(victim) else ""
        _send(kill, victim, running)
        began = time.monotonic()
        if kill.target == "pytest":
            running.wait()
            began = time.monotonic()
            found.seconds = _gone(lambda: list(tagged(run_dir)), began, found)
        elif signal.SIGKILL in kill.signals or not victim.is_running():
            found.seconds = _gone(lambda: [p for p in tree if _lives(p)], began, found)
    running.wait()
    _gone(lambda: list(tagged(run_dir)), time.monotonic(), found)
    if victim is not None:
        found.wrong += [f"port {port} is taken" for port in ports if not free(port)]
    found.wrong += left_behind(running, shared)
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
    found.wrong += left_behind(again, shared)
    found.wrong += [str(problem) for problem in resumed.problems]
    twice = [c for c in whole if _measured(run_dir).count(c) != measured.count(c)]
    found.wrong += [f"{cell} was measured again" for cell in twice]
    return found


def recorded(run_dir: Path) -> int:
    """Lines of its record so far."""
    path = run_dir / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def begun(run_dir: Path) -> int:
    """Cells that the benchmark client was told to measure so far."""
    return len(list((run_dir / "cells").glob("*.*.client.log")))


def outcomes(results: Results) -> set[tuple[str, str, str]]:
    """Check, metric and outcome of every judgement that counts."""
    return {
        (r.check.nodeid, r.judgement.measurement.name, r.judgement.outcome.value)
        for r in results.records
        if isinstance(r, JudgementRecord)
    }


def verdict(run_dir: Path) -> RunVerdict:
    return verdict_of(read_results(run_dir))


def not_intact(run_dir: Path, results: Results) -> list[str]:
    """What was said to be on disk and is not; and lines that cannot be read, but the last."""
    said = run_dir / "said.txt"
    told = said.read_text().splitlines() if said.exists() else []
    every = [*results.records, *results.replaced]
    have = [
        f"{r.check.nodeid} {r.judgement.measurement.name} {r.judgement.outcome}"
        for r in every
        if isinstance(r, JudgementRecord)
    ]
    lines = (run_dir / "results.jsonl").read_bytes().count(b"\n") + 1
    torn = [str(problem) for problem in results.problems if problem.line != lines]
    return [f"lost: {one}" for one in told if told.count(one) > have.count(one)] + torn


def left_behind(running: Running, shared: set[Path]) -> list[str]:
    """Locks, shared memory and temporary files."""
    wrong = [f"{path} is left" for path in shared if path.exists()]
    mine = running.temp.iterdir()
    wrong += [f"{path} is left" for path in mine if not path.name.startswith("pytest-of-")]
    for name in (".run.lock", ".results.lock"):
        path = running.run_dir / name
        if path.exists() and not _lockable(path):
            wrong.append(f"{path} is held")
    return wrong


def tagged(run_dir: Path) -> list[psutil.Process]:
    """Living processes of a run."""
    wanted = f"{TAG}={run_dir}".encode()
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if wanted in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return [process for process in found if _lives(process)]


def kill_all(run_dir: Path) -> None:
    for process in tagged(run_dir):
        with suppress(psutil.Error):
            process.kill()


def listening(run_dir: Path) -> set[int]:
    """TCP ports that processes of a run listen on."""
    ports = set()
    for process in tagged(run_dir):
        with suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    ports.add(connection.laddr.port)
    return ports


def shared_by(run_dir: Path) -> set[Path]:
    """Shared memory that processes of a run have mapped."""
    found = set()
    for process in tagged(run_dir):
        with suppress(OSError):
            for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                if "/dev/shm/" in line:
                    found.add(Path(line[line.index("/dev/shm/") :].removesuffix(" (deleted)")))
    return found


def free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return True
    return False


def _prepare(slave: int, room: int) -> None:
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if slave >= 0:
        os.login_tty(slave)


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


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


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _lockable(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


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
