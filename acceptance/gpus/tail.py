"""Reads a telemetry file as it grows: every line once, however often it is asked for.

After each cell, and in every check of the GPUs, somebody asks what has been seen so far. Hours of
eight GPUs are tens of megabytes; read from the beginning each time, GPUs would idle for it.
"""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING, Any

from acceptance.errors import ObservationError
from acceptance.gpus.events import GpuEvent
from acceptance.gpus.probe import Unobservable
from acceptance.gpus.telemetry import Telemetry, rest_of

if TYPE_CHECKING:
    from pathlib import Path

_BEGIN = b'"kind": "begin"'


def read_telemetry(path: Path) -> Telemetry:
    """The file as far as it is whole: a last line that is being written is passed over, and one
    that an earlier sampler, killed in its middle, left before the present one began. Raises
    ObservationError where anything else cannot be read."""
    return TelemetryTail(path).read()


class TelemetryTail:
    """One reader of a file, for one thread. Whatever pieces the file was written in, its answer is
    that of read_telemetry at the same moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin_again()

    def read(self) -> Telemetry:
        """See read_telemetry. Reads on from where the last read ended; from the beginning where
        the file is another one, or no longer what was read."""
        with self.path.open("rb") as file:
            if not self._goes_on(file):
                self._begin_again()
            file.seek(self._offset)
            self._file = _identity(file)
            for text in file:
                if not text.endswith(b"\n"):
                    break  # read again when it is whole
                self._take(text)
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        return self._found.snapshot()

    def _begin_again(self) -> None:
        self._found = Telemetry()
        self._broken: ObservationError | None = None
        self._file = (0, 0)
        self._offset: int = 0  # bytes that have been read
        self._number: int = 0  # lines
        self._last: bytes = b""

    def _goes_on(self, file: IO[bytes]) -> bool:
        """Whether the file still ends, or goes on, after the last line that was read. Its times
        make a line unlike any other."""
        if _identity(file) != self._file:
            return False
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) == self._last

    def _take(self, text: bytes) -> None:
        self._offset += len(text)
        self._number += 1
        self._last = text
        if (at := text.find(_BEGIN)) >= 0:  # where a line was torn, glued to it
            text, self._broken = text[text.rfind(b"{", 0, at) :], None
        try:
            _add(self._found, json.loads(text))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self._broken = self._broken or ObservationError(
                f"{self.path.name} line {self._number} cannot be read: {error!r}"[:300],
                log=self.path,
            )


def _identity(file: IO[bytes]) -> tuple[int, int]:
    """Device and number of an open file: another one may have taken its name."""
    told = os.fstat(file.fileno())
    return told.st_dev, told.st_ino


def _add(found: Telemetry, line: dict[str, Any]) -> None:
    moment = line["t"]
    match line["kind"]:
        case "begin":
            found.ended = None  # of an earlier sampler
            found.gpus = tuple(line["gpus"])
            found.total = {uuid: told["total"] for uuid, told in line["gpus"].items() if told}
            found.registered = {
                uuid: Unobservable(kinds["unobservable"], kinds["error"])
                if isinstance(kinds, dict)
                else tuple(kinds)
                for uuid, kinds in line["registered"].items()
            }
        case "memory":
            found.memory.append((moment, tuple(line["free"])))
            found.samples += line["samples"]
        case "rest":
            mine = found.rest.setdefault(line["gpu"], [])
            mine.append(rest_of(line, mine[-1] if mine else None))
        case "event":
            found.events.append((moment, GpuEvent(line["gpu"], line["event"], line["code"])))
        case "missed":
            why = Unobservable(line["unobservable"], line["error"])
            found.missed.append((moment, line["gpu"], line["what"], why))
        case "end":
            found.ended = line
