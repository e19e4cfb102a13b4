"""Put Python tracebacks together again from a log that many processes write at once.

A record of vLLM's logger says itself how many lines it has (see line.py), which keeps processes and
threads apart. Raw tracebacks have no such mark: they go by indentation, and what is written between
their lines by others is passed over.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acceptance.serving.line import LogLine

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(
    r'  File "(?P<file>[^"]{1,1000})", line (?P<line>\d{1,9})(?:, in (?P<name>.{1,200}))?'
)
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w{0,80}\.){0,12}[A-Z_]\w{0,80}(?::$|: |$)")
_CHAIN = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_PROCESS = re.compile(r"Process ([\w.\-]{1,64}):$")
# Raw lines that start something new and so cannot continue an exception's message.
_FOREIGN = re.compile(
    r"Process [\w.\-]{1,64}:$|/\S{1,500}: \w{1,40}Warning: |nanobind: |real\t|\[[IWEF]\d{4} |!!!!"
)
_MESSAGE_LINES = 12
_NOISE_LINES = 200
_NESTED = 8  # exception groups inside each other
_OPEN = 64  # blocks open at once; a node has about 20 processes

Key = tuple[str, int | None, str]


@dataclass(slots=True)
class Report:
    """One exception as it was printed. number: line of its "Traceback". exact: a record that says
    how long it is. title: what was logged with it. frames: function names, outermost first, the
    last 40. innermost: (function, file, line)."""

    process: str
    level: str
    time: str
    number: int
    exact: bool
    title: str = ""
    type: str = ""
    message: list[str] = field(default_factory=list)
    frames: deque[str] = field(default_factory=lambda: deque(maxlen=40))
    innermost: tuple[str, str, int] | None = None
    excerpt: deque[str] = field(default_factory=lambda: deque(maxlen=16))
    noise: int = 0

    @property
    def text(self) -> str:
        """ "Type: message", its first line; two where the first only counts the errors."""
        lines = [line.strip() for line in self.message if line.strip()][:3]
        first = lines[0] if lines else ""
        if len(lines) > 1 and (first.endswith(":") or "validation error" in first):
            first = ", ".join([first.rstrip(":"), *lines[1:]])
        return f"{self.type}: {first}" if first else self.type


class Tracebacks:
    """Feed it every line of a log, in order."""

    def __init__(self) -> None:
        self._open: dict[Key, Report] = {}
        self._title: dict[Key, str] = {}
        self._process = ""

    def feed(self, line: LogLine) -> tuple[bool, list[Report]]:
        """(the line belongs to a traceback, exceptions that are complete now)."""
        key = (line.process, line.pid, line.source if line.level else "")
        text = _ungrouped(line.text)
        report = self._open.get(key)
        if text.removeprefix("Exception Group ").startswith(_HEADER):
            done = self._close(key)
            self._begin(key, line)
            return True, done
        if report is None:
            self._remember(key, line, text)
            return text in _CHAIN, []
        if not report.type:
            return self._in_stack(key, report, line, text)
        if text in _CHAIN:
            return True, self._close(key)
        if report.exact or not self._ends_message(report, line, text):
            report.message.append(text[:2000])
            report.excerpt.append(text[:400])
            full = len(report.message) >= _MESSAGE_LINES
            return True, self._close(key) if full or self._record_over(report, line) else []
        done = self._close(key)
        self._remember(key, line, text)
        return False, done

    def unfinished(self) -> list[Report]:
        """Exceptions whose message may still go on. The log may end there."""
        return [report for report in self._open.values() if report.type]

    def _begin(self, key: Key, line: LogLine) -> None:
        if len(self._open) >= _OPEN:
            self._open.pop(next(iter(self._open)))
        self._open[key] = Report(
            process=line.process or self._process,
            level=line.level,
            time=line.time,
            number=line.number,
            exact=line.continues,
            title=self._title.pop(key, ""),
        )
        self._process = ""

    def _in_stack(
        self, key: Key, report: Report, line: LogLine, text: str
    ) -> tuple[bool, list[Report]]:
        if frame := _FRAME.match(text):
            name = frame["name"] or ""
            report.frames.append(name)
            report.innermost = (name, frame["file"], int(frame["line"]))
            report.excerpt.append(text[:400])
        elif text.startswith("  ") or not text:
            if text.strip(" ^~"):
                report.excerpt.append(text[:400])
        elif report.frames and (report.exact or _EXCEPTION.match(text)):
            kind, _, message = text.partition(": ")
            report.type = kind.rstrip(":")[:200]
            report.message.append(message[:2000])
            report.excerpt.append(text[:400])
            return True, self._close(key) if self._record_over(report, line) else []
        else:
            report.noise += 1
            if report.noise > _NOISE_LINES or self._record_over(report, line):
                self._open.pop(key, None)
            return False, []
        return True, []

    def _close(self, key: Key) -> list[Report]:
        report = self._open.pop(key, None)
        return [report] if report is not None and report.type else []

    def _record_over(self, report: Report, line: LogLine) -> bool:
        return report.exact and not line.continues

    def _ends_message(self, report: Report, line: LogLine, text: str) -> bool:
        """Whether a line is no part of the message of an exception printed without marks."""
        indented = text.startswith((" ", "\t"))
        if line.level and line.time != report.time:
            return True
        return bool(not text or _FOREIGN.match(text) or (len(report.message) > 1 and not indented))

    def _remember(self, key: Key, line: LogLine, text: str) -> None:
        """Keeps what was said last, in case a traceback follows it."""
        if not text or text in _CHAIN:
            return
        if line.source == "uvicorn" and line.level == "ERROR":
            key = (line.process, line.pid, "")  # uvicorn's own tracebacks follow it raw
        if len(self._title) >= _OPEN:
            self._title.pop(next(iter(self._title)))
        self._title[key] = text[:400]
        if not line.level:
            process = _PROCESS.match(text)
            self._process = process[1] if process else ""


def _ungrouped(text: str) -> str:
    """A line without the margin that exception groups draw beside it."""
    for _ in range(_NESTED):
        bare = text.lstrip(" ")
        if not bare.startswith(("| ", "+ ")):
            break
        text = bare[2:]
    return text
