"""Why a server failed: the first exception of the first process that failed, out of its log.

One failure is told many times: by the rank it happened to, by the ranks that lose their peer, by
the engine that loses its worker, by the API server that loses its engine. Each telling is ranked by
how far from the cause it can be, and within a rank the earliest wins.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.serving import kinds
from acceptance.serving.log import read_lines
from acceptance.serving.tracebacks import Report, Tracebacks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from acceptance.serving.kinds import Kind
    from acceptance.serving.line import LogLine

_KEPT = 400  # characters kept of a line
_SAID = 240  # characters kept of an exception's message, so that its place is still seen
_SEARCHED = 4000  # characters of a line that patterns look at
_NEAR = 100  # lines from the end within which an ERROR line is taken for the cause
_FAILING = ("ERROR", "CRITICAL", "FATAL")


@dataclass(frozen=True, slots=True)
class Cause:
    """line: one sentence, "KeyError: 'x' in load_weights (deepseek_v2.py:1820)". process: whose,
    "" where raw output does not say. number: line in the log, 0 for none. kind: a stable word (see
    kinds.toml), "silent" when nothing failed aloud. hint: what to try. source: where that kind was
    seen. excerpt: lines of the log, for people."""

    line: str
    process: str
    number: int
    kind: str
    hint: str = ""
    source: str = ""
    excerpt: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = not self.process or self.process in self.line
        return self.line if named else f"{self.process}: {self.line}"


class _Rank(IntEnum):
    """How far from the cause a telling can be."""

    FAULT = 0  # an exception or a death
    PEER = 1  # one rank's view of another's death
    REQUEST = 2  # logged by an API server that serves
    STOPPED = 3
    SURVIVED = 4  # logged as a warning, or before a start that succeeded
    LATE = 5  # PEER and REQUEST after the server was asked to stop
    SECONDARY = 6  # says that another place has the cause


_DEATH = re.compile(
    r"(?:Worker proc |Process |Worker )(?P<name>[\w.\-]{1,80})(?: \(PID: \d{1,9}\)| pid \d{1,9})?"
    r" died(?: unexpectedly \(exit code:|, exit code:| with exit code) (?P<code>-?\d{1,4})"
)
_FAILED = re.compile(
    r"Failed core proc\(s\): \{[^}]{0,400}?'(?P<name>[\w.\-]{1,80})': (?P<code>-\d{1,4})"
)
_FATAL = re.compile(r"Fatal Python error: |!{3,9} Segfault encountered")
_NATIVE = re.compile(
    r'  File "(?P<file>[^"]{1,500})", line (?P<line>\d{1,9}),? in (?P<name>.{1,500})'
)
_IGNORED = re.compile(r"Exception ignored |Error in (?:sys\.excepthook|atexit)")
_ONE_REQUEST = re.compile(r"Exception in ASGI application|Task exception was never|future: <")
_SIGNALLED = re.compile(r"ended with exit code -(?P<number>\d{1,4})\b")
_SERVING = "Application startup complete"
_STOP = "[shutdown] API server: shutdown triggered"


class CauseFinder:
    """Feed it every line of a log, in order; ask for the cause at any time. Memory is bounded."""

    def __init__(self) -> None:
        self._tracebacks = Tracebacks()
        self._best: dict[_Rank, Cause] = {}
        self._recent: deque[LogLine] = deque(maxlen=12)
        self._time = ""  # that any line told last
        self._error: Cause | None = None
        self._serving = 0  # line at which the first API server had started
        self._stopping = False
        self._fault: Cause | None = None  # a native fault whose process is not known yet
        self._native = ""  # "function (file:line)" of that fault

    def feed(self, line: LogLine) -> None:
        """Takes one line."""
        belongs, reports = self._tracebacks.feed(line)
        for report in reports:
            self._offer(*self._told(report))
        if not belongs:
            self._look(line, line.text[:_SEARCHED])
        if line.text.strip():
            self._recent.append(line)
            self._time = line.time or self._time

    def cause(self) -> Cause:
        """The best answer so far; always one."""
        best = dict(self._best)
        for report in self._tracebacks.unfinished():
            rank, cause = self._placed(*self._told(report))
            if rank not in best or cause.number < best[rank].number:
                best[rank] = cause
        return best[min(best)] if best else self._without_exception()

    def _offer(self, rank: _Rank, cause: Cause) -> None:
        rank, cause = self._placed(rank, cause)
        old = self._best.get(rank)
        if old is None or cause.number < old.number:
            self._best[rank] = cause

    def _placed(self, rank: _Rank, cause: Cause) -> tuple[_Rank, Cause]:
        """What came before a start that succeeded did not end the server."""
        survived = rank is _Rank.FAULT and cause.number < self._serving
        return (_Rank.SURVIVED if survived else rank), cause

    def _look(self, line: LogLine, text: str) -> None:
        """A line that is no part of a traceback."""
        if line.level and line.level not in _FAILING:
            self._note(line, text)
            return
        if self._fault is not None and not self._native:
            self._locate(self._fault, text)
        if kinds.BENIGN.search(text):
            return
        if line.level:
            self._error = self._cause(line, text, kinds.ERROR_LINE)
        if death := _death(text):
            self._offer(*self._died(self._cause(line, text, kinds.ERROR_LINE), *death))
        elif _FATAL.search(text):
            if self._fault is None:
                self._fault = self._cause(line, text.strip("! "), kinds.kind_of(text))
                self._offer(_Rank.FAULT, self._fault)
        elif kinds.ALONE.search(text):
            rank = self._level(line.process, line.level)
            self._offer(rank, self._cause(line, text, kinds.kind_of(text)))

    def _note(self, line: LogLine, text: str) -> None:
        """A line that is no failure, but says how to take those around it."""
        if _SERVING in text:
            self._serving = self._serving or line.number
            if told := self._best.pop(_Rank.FAULT, None):
                self._offer(_Rank.FAULT, told)
        elif _STOP in text:
            self._stopping = True
            stop = "the server was asked to stop (SIGTERM or SIGINT)"
            self._offer(_Rank.STOPPED, self._cause(line, stop, kinds.STOPPED))
        elif line.level == "WARNING" and "engine core exited unexpectedly" in text:
            self._offer(_Rank.PEER, self._cause(line, text, kinds.kind_of(text)))

    def _locate(self, fault: Cause, text: str) -> None:
        """The first frame below a native fault that says something."""
        self._native = _native_frame(text)
        if self._native:
            self._fault = replace(
                fault, line=f"{fault.line} in {self._native}", excerpt=(*fault.excerpt, text)
            )
            if self._best.get(_Rank.FAULT) is fault:
                self._best[_Rank.FAULT] = self._fault

    def _died(self, told: Cause, name: str, code: int) -> tuple[_Rank, Cause]:
        """A process that ended, told by its parent."""
        who = "worker" if "orker" in name else "process"
        if code >= 0:
            said = f"{who} {name} exited with code {code} and said nothing"
            return _Rank.PEER, _of_kind(replace(told, line=said, process=name), kinds.kind_of(said))
        sign, kind = kinds.signal_kind(-code)
        where = f" in {self._native}" if self._native else ""
        said = f"{who} {name} killed by signal {sign}{where}"
        cause = _of_kind(replace(told, line=said, process=name), kind)
        if self._fault is not None and self._best.get(_Rank.FAULT) is self._fault:
            # The same death, told before without a name.
            cause = replace(cause, excerpt=(*self._fault.excerpt[-5:], *cause.excerpt[-1:]))
            del self._best[_Rank.FAULT]
        return _Rank.FAULT, cause

    def _told(self, report: Report) -> tuple[_Rank, Cause]:
        """An exception and how far from the cause it can be."""
        text = report.text
        kind = kinds.kind_of("\n".join([text, *report.message[1:]]), report.frames)
        line = text if len(text) <= _SAID else f"{text[:_SAID]}..."
        if report.innermost is not None:
            name, file, number = report.innermost
            spot = f"({file.rsplit('/', 1)[-1]}:{number})"
            line = f"{line} in {name} {spot}" if name else f"{line} {spot}"
        excerpt = tuple(near for near in (report.title, *report.excerpt) if near.strip())
        cause = _of_kind(Cause(line, report.process, report.number, "", excerpt=excerpt), kind)
        death = _death(text)
        if death and death[1] < 0:
            return self._died(cause, *death)
        if kinds.SECONDARY.search(text) or _IGNORED.match(report.title):
            return _Rank.SECONDARY, cause
        if kinds.PEER.search(text):
            return (_Rank.LATE if self._stopping else _Rank.PEER), cause
        if report.level and report.level not in _FAILING:
            return _Rank.SURVIVED, cause
        if _ONE_REQUEST.match(report.title):
            return (_Rank.LATE if self._stopping else _Rank.REQUEST), cause
        return self._level(report.process, report.level), cause

    def _level(self, process: str, level: str) -> _Rank:
        """What an API server logs once it serves is most often about one request."""
        web = process.lower().startswith("apiserver") or (not process and level)
        if self._serving and web:
            return _Rank.LATE if self._stopping else _Rank.REQUEST
        return _Rank.FAULT

    def _cause(self, line: LogLine, said: str, kind: Kind) -> Cause:
        excerpt = tuple(str(near)[:_KEPT] for near in (*self._recent, line))
        said = said.strip()[:_KEPT]
        return Cause(said, line.process, line.number, kind.name, kind.hint, kind.source, excerpt)

    def _without_exception(self) -> Cause:
        if not self._recent:
            return _of_kind(Cause("the log is empty", "", 0, ""), kinds.NO_OUTPUT)
        last = self._recent[-1]
        if self._error is not None and last.number - self._error.number <= _NEAR:
            return self._error
        since = self._time or "its start"
        said = f'no exception in the log; silent since {since}; last line: "{last.text.strip()}"'
        warned = [
            near
            for near in self._recent
            if near.level == "WARNING" and near is not last and not kinds.BENIGN.search(near.text)
        ]
        if warned:
            said = f'{said[: _KEPT // 2]}; last warning: "{warned[-1].text.strip()}"'
        cause = self._cause(last, said, kinds.silence_after(last.text))
        return replace(cause, process="", excerpt=cause.excerpt[:-1])


def root_cause(log: Path | Iterable[LogLine], start: int = 0) -> Cause:
    """The cause in a log file, from byte `start`, or in lines already read. Reads a file once, in
    bounded memory; for a log that is followed anyway feed a CauseFinder instead."""
    finder = CauseFinder()
    for line in read_lines(log, start) if isinstance(log, Path) else log:
        finder.feed(line)
    return finder.cause()


def of_death(cause: Cause, fate: str) -> Cause:
    """The cause where the server's process ended as its custody tells (fate): by a signal, unless
    its log has an exception. A process that is killed logs nothing."""
    death = _SIGNALLED.search(fate)
    if not death or not kinds.is_silence(cause.kind):
        return cause
    sign, kind = kinds.signal_kind(int(death["number"]))
    return _of_kind(replace(cause, line=f"killed by {sign}: {cause.line}"), kind)


def _of_kind(cause: Cause, kind: Kind) -> Cause:
    return replace(cause, kind=kind.name, hint=kind.hint, source=kind.source)


def _death(text: str) -> tuple[str, int] | None:
    """(process, exit code) of a process whose end a text tells."""
    death = _DEATH.search(text) or _FAILED.search(text)
    return (death["name"], int(death["code"])) if death else None


def _native_frame(text: str) -> str:
    frame = _NATIVE.match(text)
    if not frame or "sigaction" in frame["file"] or frame["file"] == "<unknown>":
        return ""
    name = frame["name"]
    if len(name) > 60:
        name = f"{re.split(r'[<(]', name, maxsplit=1)[0][:56]}<...>"
    return f"{name} ({frame['file'].rsplit('/', 1)[-1]}:{frame['line']})"
