"""Whose is a process that NVML names: this run's, somebody else's, or not to be told.

NVML's PIDs are the host's. In a container the same number is another process, so nothing is looked
up there; what is known of such a process is when it came.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from acceptance.gpus.kv import GIB

if TYPE_CHECKING:
    from acceptance.gpus.probe import ComputeProcess

_HOST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of Linux


class Whose(StrEnum):
    """Whose a process is."""

    OURS = "ours"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"


class Owner:
    """Tells this run's processes from others. pid: of the process whose descendants are ours.
    mark: `NAME=value`, which our servers carry in their environment, for those whose parents are
    gone; empty for none."""

    def __init__(self, pid: int, mark: str = "") -> None:
        self.pid, self.mark = pid, mark.encode()

    def whose(self, pid: int) -> Whose:
        """UNKNOWN in a container, and of a process that has ended meanwhile."""
        if not sees_host_pids():
            return Whose.UNKNOWN
        if self._marked(pid):
            return Whose.OURS
        try:
            line = [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
        except psutil.NoSuchProcess:
            return Whose.FOREIGN if _hidden(pid) else Whose.UNKNOWN
        return Whose.OURS if self.pid in line else Whose.FOREIGN

    def _marked(self, pid: int) -> bool:
        if not self.mark:
            return False
        try:
            return self.mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or ended
            return False


def described(process: ComputeProcess) -> str:
    """`pid 4711 (python3 of alice, 128.0 GiB)`."""
    parts: list[str] = []
    if not sees_host_pids():
        parts.append("a PID of the host, which this container cannot name")
    else:
        try:
            named = psutil.Process(process.pid)
            parts.append(f"{named.name()} of {named.username()}")
        except psutil.Error:
            parts.append("a PID that is not visible from here")
    if process.used_bytes is not None:
        parts.append(f"{process.used_bytes / GIB:.1f} GiB")
    return f"pid {process.pid} ({', '.join(parts)})"


def sees_host_pids() -> bool:
    """Whether a PID here means what it means to NVML."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == _HOST_PID_NAMESPACE
    except OSError:
        return False


def _hidden(pid: int) -> bool:
    """Whether there is such a process although /proc does not show it (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
