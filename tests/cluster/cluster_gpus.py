"""Made-up GPUs for the nodes of a cluster."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[1] / "gpus")]

from gpus_library import build_library as build_library  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 8
HEALTHY = {"count": COUNT, "lost": 0, "taken_mib": 100, "processes": 0, "pending": 0, "mig": 0}


@dataclass(frozen=True)
class GpuNode:
    """A node's GPUs and their locks, in a folder of its own. number: which node of the tests'
    cluster; Ray may give it another one."""

    folder: Path
    number: int

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.locks.mkdir(exist_ok=True)
        self.set()

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    @property
    def uuids(self) -> list[str]:
        last = f"0000000000{self.number}"
        return [f"GPU-{i}aaaaaaa-0000-4000-8000-{last}{i}" for i in range(COUNT)]

    def env(self, library: Path) -> dict[str, str]:
        """What `ray start` is told on this node."""
        before = os.environ.get("LD_LIBRARY_PATH", "")
        return {
            "LD_LIBRARY_PATH": f"{library}:{before}",
            "FAKE_NVML_STATE": str(self.folder / "state"),
            "ACCEPTANCE_LOCKS": str(self.locks),
        }

    def set(self, **state: int) -> None:
        """What happens to the GPUs from now on; healthy but for this."""
        given = {"host": self.number, **HEALTHY, **state}
        text = "".join(f"{name} {value}\n" for name, value in given.items())
        made = self.folder / "state.new"
        made.write_text(text)
        made.replace(self.folder / "state")  # whole at every moment

    def leased(self) -> list[str]:
        """UUIDs of those that somebody holds."""
        return [uuid for uuid in self.uuids if self._locked(uuid)]

    def _locked(self, uuid: str) -> bool:
        path = self.locks / f"{uuid}.lock"
        if not path.exists():
            return False
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def taken(self, uuid: str) -> Iterator[None]:
        """A GPU that another run leases."""
        with (self.locks / f"{uuid}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
