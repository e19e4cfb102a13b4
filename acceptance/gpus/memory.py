"""Memory now: of a process tree on the host, and of GPUs, through one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import psutil

from acceptance.gpus.probe import Observed, Probe, Unobservable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HOST = "host"


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Bytes of one device at one moment. device: "host" or a GPU's UUID.

    used: on the host, what is resident in the watched process tree; on a GPU, what anyone has
    taken, less the driver's reserve.
    """

    device: str
    total: int
    free: int
    used: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A device that did not answer when it was sampled."""

    device: str
    why: Unobservable


class MemoryProbe(Protocol):
    def sample(self) -> list[MemorySample | Missed]:
        """One entry a device, in a fixed order."""


def tree_pids(root: int) -> list[int]:
    """PIDs of a process and all its descendants; empty when it is gone."""
    try:
        process = psutil.Process(root)
        return [root, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def resident_bytes(pids: Iterable[int]) -> Observed[int]:
    """Resident bytes of processes together, each shared page counted once in all.

    That is the sum of their proportional set sizes (smaps_rollup); a process whose share may not be
    read counts with its whole resident set. Processes that have gone, or are going and hold nothing
    any more, count nothing; when all have, it is Unobservable.
    """
    sizes = [size for pid in pids if (size := _resident(pid)) is not None]
    if not sizes:
        return Unobservable("resident memory: no process of the tree is alive")
    return sum(sizes)


def _resident(pid: int) -> int | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        try:
            size = int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):
            size = int(process.memory_info().rss)
        return size or None  # a process that ends has lost its pages before it is a zombie
    except psutil.Error:
        return None


class HostMemory:
    """The host as a MemoryProbe. pids: asked at each sample, because a tree grows and shrinks."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def sample(self) -> list[MemorySample | Missed]:
        used = resident_bytes(self._pids())
        if isinstance(used, Unobservable):
            return [Missed(HOST, used)]
        host = psutil.virtual_memory()
        return [MemorySample(HOST, host.total, host.available, used)]


class GpuMemory:
    """GPUs as a MemoryProbe, by UUID."""

    def __init__(self, probe: Probe, uuids: Sequence[str]) -> None:
        self._probe = probe
        self._uuids = tuple(uuids)

    def sample(self) -> list[MemorySample | Missed]:
        return [self._one(uuid) for uuid in self._uuids]

    def _one(self, uuid: str) -> MemorySample | Missed:
        memory = self._probe.memory(uuid)
        if isinstance(memory, Unobservable):
            return Missed(uuid, memory)
        return MemorySample(uuid, memory.total, memory.free, memory.taken)
