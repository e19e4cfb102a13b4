"""Starts of servers: how long each phase took, and whether caches were there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reports.schema import ServerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.schema import AnyRecord

_READ = 4 << 20  # bytes of a log, from its begin: a start is told there
_WARM = (b"Directly load the compiled graph", b"Directly load AOT compilation")
_COLD = (b"Compiling a graph for", b"Dynamo bytecode transform time")


@dataclass(frozen=True)
class Start:
    """One start of a server. segments: (phase, seconds). caches: warm when its log says
    that compiled graphs were loaded, cold when they were compiled, else which start of the run."""

    record: ServerRecord
    total: float
    segments: tuple[tuple[str, float], ...]
    caches: str

    @property
    def name(self) -> str:
        """The deployment that was started."""
        return self.record.deployment


def starts(records: Sequence[AnyRecord], run_dir: Path | None = None) -> list[Start]:
    """Every server that became ready or failed, in order."""
    seen: Counter[str] = Counter()
    made = []
    for record in records:
        if not isinstance(record, ServerRecord) or record.outcome == "stopped":
            continue
        seen[record.deployment] += 1
        caches = _caches(record.trace.log, run_dir) or f"start {seen[record.deployment]}"
        segments = tuple(record.phases.items())
        made.append(Start(record, sum(record.phases.values()), segments, caches))
    return made


def _caches(log: str, run_dir: Path | None) -> str:
    if not log or run_dir is None:
        return ""
    for path in (run_dir / "servers" / Path(log).name, Path(log)):
        try:
            with path.open("rb") as file:
                text = file.read(_READ)
        except OSError:
            continue
        if any(words in text for words in _WARM):
            return "warm"
        return "cold" if any(words in text for words in _COLD) else ""
    return ""
