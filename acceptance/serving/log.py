"""Follow a server's log: as it grows, once, and in bounded memory.

A server that runs for days writes gigabytes. The reader keeps one unfinished line and one chunk;
every byte is read once. Progress bars end their updates in a bare CR: each is a line of its own
with the number of the physical line it is in. Blank lines are left out.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from acceptance.serving.line import LogLine, clean, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE_LIMIT = 16 * 1024  # bytes kept of one line; the rest is passed over
_CHUNK = 128 * 1024
_CUT = b" ...[cut]"

__all__ = ["LINE_LIMIT", "LogLine", "LogTail", "read_lines"]


class LogTail:
    """Reads what was added to a log since the last poll.

    A file that is not there yet has no lines. A file that became shorter was replaced and is read
    from its start; `restarts` counts that. offset: byte to start at. number: that line's number.
    """

    def __init__(self, path: Path, *, offset: int = 0, number: int = 1) -> None:
        self.path = path
        self.restarts = 0
        self._read = offset  # bytes taken from the file
        self._start = offset  # where the unfinished line starts
        self._number = number
        self._partial = b""
        self._skipping = False  # inside a line longer than the limit
        self._ready: deque[LogLine] = deque()

    @property
    def offset(self) -> int:
        """Bytes read so far. Compare it with a later one to see whether the log grew."""
        return self._read

    def poll(self, limit: int | None = None) -> Iterator[LogLine]:
        """Finished lines, until the end of the file or about `limit` more bytes. A caller that
        stops early finds the rest in the next poll."""
        end = None if limit is None else self._read + limit
        while True:
            while self._ready:
                yield self._ready.popleft()
            if end is not None and self._read >= end:
                return
            if not (chunk := self._more(_CHUNK if end is None else min(_CHUNK, end - self._read))):
                return
            self._take(chunk)

    def rest(self) -> list[LogLine]:
        """The unfinished last line, as far as it is written. For when its writer is gone or for
        the current state of a progress bar; it comes again, whole, when it is finished."""
        if not self._partial or self._skipping:
            return []
        return self._split(self._partial, self._start)

    def _more(self, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read = self._start = 0
                    self._number = 1
                    self._partial, self._skipping = b"", False
                    self.restarts += 1
                file.seek(self._read)
                chunk = file.read(size)
        except FileNotFoundError:
            return b""
        self._read += len(chunk)
        return chunk

    def _take(self, chunk: bytes) -> None:
        *finished, last = (self._partial + chunk).split(b"\n")
        for piece in finished:
            self._emit(piece)
            self._skipping = False
            self._start += len(piece) + 1
            self._number += 1
        self._keep(last)

    def _keep(self, last: bytes) -> None:
        """Hold the unfinished line back, all but the finished updates of a progress bar. A CR at
        the very end may be half of a CR LF."""
        if (end := last.rfind(b"\r", 0, max(len(last) - 1, 0))) >= 0:
            self._emit(last[:end], record=False)
            self._skipping = False
            self._start += end + 1
            last = last[end + 1 :]
        if not self._skipping and len(last) > LINE_LIMIT:
            self._emit(last, record=False)
            self._skipping = True
        if self._skipping:
            # Of what is passed over only a CR at the end matters: an update may follow it.
            kept = b"\r" if last.endswith(b"\r") else b""
            self._start += len(last) - len(kept)
            last = kept
        self._partial = last

    def _emit(self, piece: bytes, *, record: bool = True) -> None:
        start = self._start
        if self._skipping:
            passed = piece.find(b"\r") + 1
            if not passed:
                return
            piece, start = piece[passed:], start + passed
        self._ready.extend(self._split(piece, start, record=record))

    def _split(self, piece: bytes, start: int, *, record: bool = False) -> list[LogLine]:
        """record: a newline followed, so that a CR at the end says that the record goes on."""
        continues = record and piece.endswith(b"\r")
        if piece.endswith(b"\r"):
            piece = piece[:-1]
        if not piece:
            return []
        if b"\r" not in piece:
            return parse(clean(_cut(piece)), self._number, start, continues=continues)
        lines: list[LogLine] = []
        parts = piece.split(b"\r")
        for index, part in enumerate(parts):
            if part:
                final = continues and index == len(parts) - 1
                lines += parse(clean(_cut(part)), self._number, start, continues=final)
            start += len(part) + 1
        return lines


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[LogLine]:
    """The lines that begin in bytes [start, end) of a file, end None being its present size.

    Line numbers count from 1 at `start`. A line cut by `start` is left out, one cut by `end` is
    whole. A file that is not there has none.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start - 1, 0))
            cut = start > 0 and file.read(1) != b"\n"
    except FileNotFoundError:
        return
    if start >= size:
        return
    tail = LogTail(path, offset=start)
    for line in _until(tail, size if end is None else end):
        if cut and line.offset == start:
            continue
        yield line


def _until(tail: LogTail, end: int) -> Iterator[LogLine]:
    for line in tail.poll(max(end - tail.offset, 0) + LINE_LIMIT):
        if line.offset >= end:
            return
        yield line
    yield from (line for line in tail.rest() if line.offset < end)


def _cut(line: bytes) -> bytes:
    return line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + _CUT
