"""What a run has on the host, and what of it is left when the run has ended."""

from __future__ import annotations

import fcntl
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from reports.schema import JudgementRecord

if TYPE_CHECKING:
    from reports.reading import Results

TAG = "SURVIVAL_RUN"  # in the environment of every process of a run: its directory


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


def left_behind(run_dir: Path, temp: Path, shared: set[Path]) -> list[str]:
    """Locks, shared memory and temporary files."""
    wrong = [f"{path} is left" for path in shared if path.exists()]
    mine = temp.iterdir()
    wrong += [f"{path} is left" for path in mine if not path.name.startswith("pytest-of-")]
    for name in (".run.lock", ".results.lock"):
        path = run_dir / name
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
    return [process for process in found if lives(process)]


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


def lives(process: psutil.Process) -> bool:
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
