"""Runs of the small project, each a process of its own. Every process of a run carries TAG in its
environment, whoever started it."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import survival_site as site
from survival_left import TAG, kill_all

from reports.reading import Results, read_results
from reports.ruling import verdict_of
from reports.schema import JudgementRecord

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.judging.verdict import RunVerdict

LIMIT = 180.0  # seconds: a run that hangs fails
ALONE = ("--deployment", site.DEPLOYMENTS[0])
BESIDE = ("--deployment", "survival-*", "-n", "2")


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
        if room:  # Python 3.11 takes the part of a compiled module that had room for the whole
            env["PYTHONDONTWRITEBYTECODE"] = "1"
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


def recorded(run_dir: Path) -> int:
    """Lines of its record so far."""
    path = run_dir / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def outcomes(results: Results) -> set[tuple[str, str, str]]:
    """Check, metric and outcome of every judgement that counts."""
    return {
        (r.check.nodeid, r.judgement.measurement.name, r.judgement.outcome.value)
        for r in results.records
        if isinstance(r, JudgementRecord)
    }


def verdict(run_dir: Path) -> RunVerdict:
    return verdict_of(read_results(run_dir))


def _prepare(slave: int, room: int) -> None:
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if slave >= 0:
        os.login_tty(slave)


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])
