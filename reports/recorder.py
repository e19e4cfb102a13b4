"""Writing results.jsonl so that nothing said is lost: one line, one write, on disk as a test ends.

Several processes may write at the same time. A process killed in the middle of a line leaves a
torn one, which the next writer closes off and the reader reports.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from filelock import FileLock

from reports.schema import JudgementRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reports.schema import AnyRecord, RunRecord

RESULTS = "results.jsonl"
RUN = "run.json"
_LOCK_SECONDS = 60
_CHUNK = 1 << 16


class Redacts(Protocol):
    """Takes secrets out of text; acceptance.secrets.Redactor is one."""

    def redact(self, text: str) -> str:
        """The text with every secret replaced."""
        ...

    def value(self, value: Any) -> Any:
        """The same for plain data, however deep."""
        ...


class Recorder:
    """Appends records to a run directory. Make one in each process that writes."""

    def __init__(self, run_dir: Path, redactor: Redacts | None = None) -> None:
        self.run_dir = run_dir
        self.results = run_dir / RESULTS
        self.redactor = redactor
        self.lost: Callable[[OSError], NoReturn] | None = None  # told what no disk takes any more
        run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(run_dir / ".results.lock", timeout=_LOCK_SECONDS)

    def start(self, run: RunRecord, **session: Any) -> None:
        """Writes run.json, then the run's first line. Called once, before anything runs.

        run.json: the run record of this session, and `sessions`, a list of every session's run
        record with what else is said of it (session: plain data). A resumed run adds its own.
        """
        with self._lock:
            cut = cut_torn(self.results)
        mine = self._clean({**self._plain(run), "torn_bytes_cut": cut, **session})
        told = {**self._plain(run), "sessions": [*sessions(self.run_dir), mine]}
        part = self.run_dir / ".run.json.part"
        part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        part.replace(self.run_dir / RUN)
        self.write(run)

    def write(self, record: AnyRecord) -> None:
        """Appends one line and returns when it is on disk; a judgement, when it is the system's to
        write, which no death of this process undoes: it reaches the disk with its test's line.

        Raises OSError when the disk is full or gone (unless `lost` raises something else first),
        filelock.Timeout, which is one, when another process holds the file for a minute.
        """
        line = json.dumps(self._plain(record), separators=(",", ":"), allow_nan=False)
        try:
            with self._lock:
                append(
                    self.results, line.encode("ascii"), sync=not isinstance(record, JudgementRecord)
                )
        except OSError as error:
            if self.lost is not None:
                self.lost(error)
            raise

    def redact(self, text: str) -> str:
        """The text without secrets."""
        return self.redactor.redact(text) if self.redactor else text

    def _plain(self, record: AnyRecord) -> Any:
        return self._clean(_plain(_finite(record).model_dump(by_alias=True)))

    def _clean(self, plain: Any) -> Any:
        return self.redactor.value(_plain(plain)) if self.redactor else _plain(plain)


def sessions(run_dir: Path) -> list[dict[str, Any]]:
    """The sessions that run.json tells of, oldest first; none where it cannot be read."""
    try:
        told = json.loads((run_dir / RUN).read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []


def cut_torn(path: Path) -> int:
    """Cuts a last line that its writer did not finish: it says nothing, and its check is run
    again. How many bytes that took; 0 where there is no such line, or no file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return 0
    try:
        size = end = os.fstat(handle).st_size
        while end:
            chunk = os.pread(handle, min(end, _CHUNK), max(end - _CHUNK, 0))
            if (found := chunk.rfind(b"\n")) >= 0:
                end += found + 1 - len(chunk)
                break
            end -= len(chunk)
        if end < size:
            os.ftruncate(handle, end)
            os.fsync(handle)
        return size - end
    finally:
        os.close(handle)


def append(path: Path, line: bytes, *, sync: bool = True) -> None:
    """Appends a line to a file, and syncs it if asked to; closes off a torn line somebody left.
    Leaves the file as it was when the disk takes only a part. Raises OSError."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        left = memoryview(b"\n" * torn + line + b"\n")
        try:
            while left:  # one write, unless the disk takes only a part
                left = left[os.write(handle, left) :]
            if sync:
                os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def _finite(record: AnyRecord) -> AnyRecord:
    """JSON has no NaN: samples that are no number are left out, and counted in the evidence."""
    if not isinstance(record, JudgementRecord):
        return record
    measurement = record.judgement.measurement
    samples = tuple(s for s in measurement.samples if math.isfinite(s))
    if len(samples) == len(measurement.samples):
        return record
    lost = {"samples_not_finite": len(measurement.samples) - len(samples)}
    measurement = measurement.model_copy(
        update={"samples": samples, "evidence": {**measurement.evidence, **lost}}
    )
    judgement = record.judgement.model_copy(update={"measurement": measurement})
    return record.model_copy(update={"judgement": judgement})


def _plain(value: Any) -> Any:
    """Only what JSON knows; other things as their text."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return _text(value)


def _text(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are no text
