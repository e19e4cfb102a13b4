"""Fake servers in real processes, for tests of whatever owns them."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import psutil
from packaging.version import Version

from acceptance.deployments.installed import Vllm
from acceptance.deployments.load import SHIPPED, read_deployment
from acceptance.deployments.schema import Budgets, Deployment, Profile
from acceptance.secrets import Redactor
from acceptance.serving import launch, readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from acceptance.gpus.lease import Lease
    from acceptance.serving.readiness import Progress
    from acceptance.serving.server import Server

FAKE = Path(__file__).parents[1] / "fakes" / "fake_vllm.py"
VLLM = Vllm(Version("0.32.0"), (sys.executable, str(FAKE)), cpu=True, python=sys.executable)
RUN = "FAKE_RUN"  # in the environment of everything that a start started: its run directory
GONE = 15.0  # seconds after its owner's death within which a server must be gone


def fake_deployment(
    name: str = "rehearsal-tp-ep", *, shutdown_timeout: int = 1, **budgets: float
) -> Deployment:
    """A shipped rehearsal with budgets that a loaded machine keeps to, unless given."""
    shipped = read_deployment(SHIPPED / f"{name}.toml")
    usual = {"start": 60.0, "silence": 30.0, "stop": 10.0, "request": 20.0, "hang": 20.0}
    options = shipped.options.model_copy(update={"shutdown_timeout": shutdown_timeout})
    given = Budgets(**{**usual, **budgets})
    return shipped.model_copy(update={"budgets": given, "options": options})


def start(
    run_dir: Path,
    *faults: str,
    deployment: Deployment | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
    fds: Sequence[int] = (),
    redactor: Redactor | None = None,
    pace: float = 0.005,
    suffix: str = "",
) -> Server:
    """Launches the fake with these faults. fds: descriptors of a lease. Raises as launch does."""
    lease = cast("Lease", SimpleNamespace(gpus=(), fds=tuple(fds))) if fds else None
    said = {
        "FAKE_VLLM": ",".join(faults),
        "FAKE_VLLM_PACE": str(pace),
        RUN: str(run_dir),
    }
    with (
        mock.patch.object(launch, "prepare", return_value=launch.Preparation("made-up")),
        mock.patch.multiple(readiness, POLL=0.05, SETTLE=0.3),
        mock.patch.dict(os.environ, said),
    ):
        return launch.launch(
            deployment or fake_deployment(),
            Profile.BENCHMARK,
            VLLM,
            run_dir,
            redactor=redactor or Redactor(),
            gpus=lease,
            suffix=suffix,
            tell=tell,
        )


def until(true: Callable[[], Any], seconds: float = 10.0) -> bool:
    """Whether it becomes true within so many seconds."""
    limit = time.monotonic() + seconds
    while not true():
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def lives(process: psutil.Process) -> bool:
    """Whether it runs; what nobody has waited for yet does not."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def told_apart(processes: Sequence[psutil.Process]) -> list[str]:
    """The living among them, for a message."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if lives(process):
                found.append(f"{process.pid} {command}")
    return found


def started_for(run_dir: Path) -> Iterator[psutil.Process]:
    """Living processes of this run directory's servers, wardens included."""
    wanted = f"{RUN}={run_dir}".encode()
    for process in psutil.process_iter():
        with suppress(OSError):
            found = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if wanted in found and lives(process):
                yield process
