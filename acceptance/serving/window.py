"""What a server's log says against a measurement: the lines of interest between two offsets.

Take the log's size before and after a measurement (LogTail.offset, or the file's size) and read
only what lies between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.serving.facts import JIT_DURING_INFERENCE
from acceptance.serving.kinds import BENIGN
from acceptance.serving.log import read_lines

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.serving.line import LogLine

_SHOWN = 20  # lines kept of each sort; the counts go on
_FAILING = ("ERROR", "CRITICAL", "FATAL")
_STALL = "No available shared memory broadcast block found"
_PREEMPTED = "is preempted by"


@dataclass(frozen=True, slots=True)
class LogWindow:
    """errors: first lines of ERROR records. jit: kernels compiled while serving, each a latency
    spike. stalls: a worker kept the others waiting for a minute. preemptions: a request lost its
    KV cache and starts over. Each at most the first 20 lines, with the true count beside it."""

    start: int
    end: int
    errors: tuple[str, ...] = ()
    error_count: int = 0
    jit: tuple[str, ...] = ()
    jit_count: int = 0
    stalls: int = 0
    preemptions: int = 0

    @property
    def clean(self) -> bool:
        """Nothing was logged that speaks against a measurement."""
        return not (self.error_count or self.jit_count or self.stalls or self.preemptions)


def read_window(path: Path, start: int, end: int | None = None) -> LogWindow:
    """Lines that begin in bytes [start, end), end None being the present size. Raises
    FileNotFoundError where there is no log, since no log is not a clean log."""
    size = path.stat().st_size
    end = size if end is None else min(end, size)
    errors: list[str] = []
    jit: list[str] = []
    error_count = jit_count = stalls = preemptions = 0
    inside: set[tuple[str, int | None, str]] = set()  # records that go on in their next line
    for line in read_lines(path, start, end):
        if line.level in _FAILING and _begins(line, inside) and not BENIGN.search(line.text):
            error_count += 1
            if len(errors) < _SHOWN:
                errors.append(str(line)[:400])
        elif JIT_DURING_INFERENCE.match(line.text):
            jit_count += 1
            if len(jit) < _SHOWN:
                jit.append(str(line)[:400])
        elif _STALL in line.text:
            stalls += 1
        elif _PREEMPTED in line.text:
            preemptions += 1
    return LogWindow(
        start, end, tuple(errors), error_count, tuple(jit), jit_count, stalls, preemptions
    )


def _begins(line: LogLine, inside: set[tuple[str, int | None, str]]) -> bool:
    """Whether a line is the first of its record."""
    key = (line.process, line.pid, line.source)
    first = key not in inside
    if line.continues and len(inside) < 1000:
        inside.add(key)
    else:
        inside.discard(key)
    return first
