"""What a fleet was asked to run, and how far each of its hosts has come: fleet.json of its folder.

A host's run lies in hosts/NAME, once all of it is there; what its command said in logs/NAME.log.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from acceptance.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "fleet.json"


class State(StrEnum):
    """DROPPED: it has no whole run, and says why. DONE: it has, whatever that run found."""

    WAITING = "waiting"
    RUNNING = "running"
    DROPPED = "dropped"
    DONE = "done"


@dataclass(frozen=True)
class Entry:
    """One host. why: it dropped out. code: of its command. seconds: from its agent's start to the
    last byte of its run's folder; cpu_seconds: used there by its command. size: bytes gathered."""

    address: str = ""
    state: State = State.WAITING
    why: str = ""
    code: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    size: int = 0


@dataclass
class FleetRecord:
    """folder: of the fleet. words: of each host's command, without its directory. simulated: hosts
    asked of --simulate; 0 for a cluster."""

    folder: Path
    words: tuple[str, ...]
    simulated: int = 0
    hosts: dict[str, Entry] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def run_of(self, name: str) -> Path:
        """Where a host's run lies, or is to lie."""
        return self.folder / "hosts" / _file(name)

    def log_of(self, name: str) -> Path:
        """What a host's command said."""
        return self.folder / "logs" / f"{_file(name)}.log"

    def set(self, name: str, **changed: Any) -> Entry:
        """Changes a host's entry and writes all of it."""
        with self._lock:
            entry = self.hosts[name] = replace(self.hosts.get(name, Entry()), **changed)
            told = {
                "words": self.words,
                "simulated": self.simulated,
                "hosts": {one: asdict(self.hosts[one]) for one in sorted(self.hosts)},
            }
            new = self.folder / f"{FILE}.new"
            new.write_text(json.dumps(told, indent=1), encoding="utf-8")
            new.replace(self.folder / FILE)
        return entry


def read_fleet(folder: Path) -> FleetRecord:
    """The record in a folder. Raises InputError where there is none that can be read."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        hosts = {
            str(name): Entry(**{**given, "state": State(given["state"])})
            for name, given in told["hosts"].items()
        }
        return FleetRecord(folder, tuple(told["words"]), int(told["simulated"]), hosts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder} holds no fleet: {error}", asked=f"reading {folder / FILE}"
        ) from error


def _file(name: str) -> str:
    """A host's name as that of a file: a cluster's names are not trusted with this one."""
    quoted = quote(name, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")
