"""Leases: the exclusive right to some GPUs of this host, all of them or none.

A lock file a GPU keeps out every run, worker and user that takes leases. A GPU in use by anything
else is refused too, because what is measured on it would be wrong.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from acceptance.gpus.kv import GIB
from acceptance.gpus.lock import Holder, LeaseRefused, LockFile, lock_directory
from acceptance.gpus.probe import Gpu, Probe, Unobservable
from acceptance.gpus.whose import described

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Memory that may be taken on an idle GPU: well below one CUDA context plus a model, above what a
# driver leaves about. Memory v1 cannot tell the driver's reserve (615 MiB on an H200, 912 MiB on an
# A100: github.com/Cldfire/nvml-wrapper issue 57), so it gets that on top.
IDLE_TAKEN = GIB // 2
IDLE_TAKEN_WITH_RESERVE = 2 * GIB
_POLL = 0.2
_ALLOCATING = 30.0  # seconds that another process may need for its turn at choosing GPUs


@dataclass(frozen=True, slots=True)
class Lease:
    """GPUs that nobody else leases. fds: give these to the warden (`pass_fds`), and the GPUs stay
    leased until it too has ended, also when this process is killed."""

    gpus: tuple[Gpu, ...]
    fds: tuple[int, ...]

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(gpu.uuid for gpu in self.gpus)

    @property
    def cuda_visible_devices(self) -> str:
        """By whole UUID: the same GPUs under every CUDA_DEVICE_ORDER."""
        return ",".join(self.uuids)

    @property
    def indexes(self) -> str:
        """By index, right only together with CUDA_DEVICE_ORDER=PCI_BUS_ID."""
        return ",".join(str(gpu.index) for gpu in self.gpus)


@contextmanager
def lease(
    pool: Sequence[Gpu],
    probe: Probe,
    *,
    count: int | None = None,
    run_dir: Path | str = "",
    timeout: float = 0.0,
    settle: float = 20.0,
    directory: Path | None = None,
) -> Iterator[Lease]:
    """Holds `count` GPUs of `pool` (all of it when None) for as long as the block runs.

    timeout: seconds to wait for GPUs that others lease. settle: seconds to wait for the memory of a
    leaseholder that was killed, whose server may still be ending. directory: lock_directory() when
    None. Raises LeaseRefused, naming each GPU that is in the way and why.
    """
    wanted = len(pool) if count is None else count
    if wanted > len(pool):
        raise LeaseRefused(f"{wanted} GPUs are asked for and {len(pool)} may be leased")
    directory = directory or lock_directory(os.environ)
    started = time.monotonic()
    while True:
        with _turn(directory):
            taken = _take(pool, probe, wanted, directory)
        if taken.enough:
            break
        waited = time.monotonic() - started
        patience = {"leased": timeout, "settling": settle, "busy": 0.0}
        hopeful = sum(waited < patience[blocker.kind] for blocker in taken.blockers)
        if len(pool) - len(taken.blockers) + hopeful < wanted:
            raise _refused(wanted, pool, taken.blockers)
        time.sleep(_POLL)
    with taken.locks:
        for lock in taken.held.values():
            lock.hold_as(Holder.this_process(run_dir))
        leased = tuple(gpu for gpu in pool if gpu.uuid in taken.held)
        yield Lease(leased, tuple(lock.fd for lock in taken.held.values()))


def survey(gpus: Sequence[Gpu], probe: Probe, *, directory: Path | None = None) -> dict[str, str]:
    """UUID -> why a lease of that GPU would be refused now. GPUs that are free are not in it."""
    directory = directory or lock_directory(os.environ)
    with _turn(directory):
        taken = _take(gpus, probe, len(gpus), directory)
        taken.locks.close()
    return {blocker.gpu.uuid: blocker.why for blocker in taken.blockers}


def busy(gpu: Gpu, probe: Probe) -> str | None:
    """Why a GPU is not idle, locks aside; None where it is. What cannot be observed is not idle."""
    memory = probe.memory(gpu.uuid)
    if isinstance(memory, Unobservable):
        return f"whether it is idle cannot be told: {memory}"
    processes = probe.processes(gpu.uuid)
    taken = f"{memory.taken / GIB:.1f} GiB in use"
    if not isinstance(processes, Unobservable) and processes:
        return f"{taken} by {', '.join(map(described, processes))}"
    allowed = IDLE_TAKEN_WITH_RESERVE if memory.reserved is None else IDLE_TAKEN
    if memory.taken <= allowed:
        return None
    if isinstance(processes, Unobservable):
        return f"{taken}, by whom cannot be told: {processes}"
    return f"{taken} by no process that NVML shows; it may be one outside this container"


@dataclass(frozen=True, slots=True)
class _Blocker:
    """kind: "leased" and "settling" pass with time, "busy" is somebody else's doing."""

    gpu: Gpu
    kind: Literal["leased", "settling", "busy"]
    why: str


@contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """One process at a time chooses, or two that each take half of what both need both fail."""
    lock = LockFile(directory, "choosing")
    deadline = time.monotonic() + _ALLOCATING
    while not lock.try_acquire():
        if time.monotonic() > deadline:
            raise LeaseRefused(f"Another process has been choosing GPUs for {_ALLOCATING:.0f} s")
        time.sleep(_POLL / 10)
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class _Taken:
    """held: UUID -> lock, empty unless enough. locks: closing it releases them."""

    enough: bool
    held: dict[str, LockFile]
    locks: ExitStack
    blockers: tuple[_Blocker, ...]


def _take(pool: Sequence[Gpu], probe: Probe, wanted: int, directory: Path) -> _Taken:
    """Locks `wanted` idle GPUs of the pool, in UUID order, or none and tells what is in the way."""
    held: dict[str, LockFile] = {}
    blockers: list[_Blocker] = []
    with ExitStack() as locks:
        for gpu in sorted(pool, key=lambda gpu: gpu.uuid):
            if len(held) == wanted:
                break
            lock = LockFile(directory, gpu.uuid)
            if not lock.try_acquire():
                holder = lock.holder() or "a run that is just writing its name"
                blockers.append(_Blocker(gpu, "leased", f"leased by {holder}"))
                continue
            with ExitStack() as undo:
                undo.callback(lock.release, keep_name=True)
                why, dead = busy(gpu, probe), lock.holder()
                if why is None:
                    undo.pop_all()
                    locks.callback(lock.release)
                    held[gpu.uuid] = lock
                else:
                    last = f"; its last lease was never given back: {dead}" if dead else ""
                    blockers.append(_Blocker(gpu, "settling" if dead else "busy", why + last))
        if len(held) == wanted:
            return _Taken(True, held, locks.pop_all(), tuple(blockers))
    return _Taken(False, {}, ExitStack(), tuple(blockers))


def _refused(wanted: int, pool: Sequence[Gpu], blockers: Sequence[_Blocker]) -> LeaseRefused:
    lines = "".join(f"\n    {blocker.gpu}: {blocker.why}" for blocker in blockers)
    return LeaseRefused(
        f"{len(pool) - len(blockers)} of {wanted} GPUs can be leased:{lines}",
        hint="end what is in the way, wait for it, or choose other GPUs with --gpus",
    )
