"""Fake servers in real processes, for tests of whatever owns them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
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
from acceptance.serving.here import launcher_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from signal import Signals

    from acceptance.gpus.lease import Lease
    from acceptance.serving.readiness import Progress
    from acceptance.serving.server import Server

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "fakes" / "fake_vllm.py"
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
    deployment = deployment or fake_deployment()
    lease = cast("Lease", SimpleNamespace(uuids=(), fds=tuple(fds))) if fds else None
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
            deployment,
            Profile.BENCHMARK,
            VLLM,
            run_dir,
            redactor=redactor or Redactor(),
            suffix=suffix,
            tell=tell,
            launcher=launcher_for(deployment, lease),
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


@dataclass(frozen=True)
class Killing:
    """What is done to an owner. stage, faults, deployment: as serving_owner.py reads them."""

    how: Signals
    stage: str
    faults: tuple[str, ...]
    deployment: str = "rehearsal-tp-ep"


@dataclass(frozen=True)
class Death:
    """An owner that has been killed. tree: what it owned then, wardens included. late: what of
    that, and of anything started since, was still there GONE seconds later."""

    tree: tuple[psutil.Process, ...]
    late: tuple[str, ...]


def kill_owners(killings: Mapping[str, Killing], folder: Path) -> dict[str, Death]:
    """Owners killed at once, since each needs its time."""
    owners: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    for name, killing in killings.items():
        run_dir = folder / f"run{len(owners)}"
        run_dir.mkdir()
        owner = Path(__file__).with_name("serving_owner.py")
        words = (run_dir, killing.stage, ",".join(killing.faults), killing.deployment)
        owners[name] = (
            subprocess.Popen(
                [sys.executable, str(owner), *map(str, words)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
            ),
            run_dir,
        )
    trees = {}
    for name, (owner_process, _) in owners.items():
        assert owner_process.stdout is not None
        assert owner_process.stdout.readline().strip() == killings[name].stage
        trees[name] = tuple(psutil.Process(owner_process.pid).children(recursive=True))
    for name, (owner_process, _) in owners.items():
        owner_process.send_signal(killings[name].how)
    limit = time.monotonic() + GONE
    late = {}
    for name, (owner_process, run_dir) in owners.items():
        owner_process.wait(GONE)

        def left(name: str = name, run_dir: Path = run_dir) -> list[psutil.Process]:
            return [*filter(lives, trees[name]), *started_for(run_dir)]

        until(lambda left=left: not left(), limit - time.monotonic())  # type: ignore[misc]
        late[name] = tuple(told_apart(left()))
        for process in left():
            process.kill()
    return {name: Death(trees[name], late[name]) for name in owners}
