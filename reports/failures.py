"""What went wrong in a run, root causes first, with the lines of the log around them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.judging.judgement import Outcome
from acceptance.secrets import Redactor
from reports import ruling
from reports.schema import JudgementRecord, ServerRecord, Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.schema import AnyRecord

AROUND = 8  # lines of the log before and after the cause
_READ = 4 << 20  # bytes of a log, from its end, that are searched
_LONGEST = 400  # characters of a line
_WORDS = 24  # fewest characters of a cause that may be searched for


@dataclass(frozen=True)
class Failure:
    """Something that went wrong, its root cause first. kind: what it is, in a word. around: lines
    of the log, the cause's own marked. log: where the full log is, for a link when it lies in the
    run's folder."""

    kind: str
    deployment: str
    what: str
    title: str
    trace: Trace
    around: tuple[tuple[str, bool], ...] = ()
    link: str = ""
    also: int = 0


def failures(records: Sequence[AnyRecord], run_dir: Path | None = None) -> list[Failure]:
    """Servers first, then tests that broke, limits that were crossed, and what was invalid."""
    logs = {r.deployment: r.trace.log for r in records if isinstance(r, ServerRecord)}
    made: list[Failure] = []

    def add(kind: str, deployment: str, what: str, title: str, trace: Trace, cause: str) -> None:
        log = trace.log or logs.get(deployment, "")
        told = trace.model_copy(update={"cause": trace.cause or cause, "log": log})
        twin = next((n for n, one in enumerate(made) if _same(one, kind, deployment, told)), None)
        if twin is not None:
            also = made[twin].also + 1
            made[twin] = replace(made[twin], also=also)
            return
        path, link = _found(log, run_dir)
        around = _around(path, told.cause) if path is not None else ()
        made.append(Failure(kind, deployment, what, title, told, around, link))

    for server in ruling.failed_servers(records):
        what = f"{server.profile} profile" if server.profile else ""
        add("server failed", server.deployment, what, "", server.trace, "")
    for broken in ruling.broken_tests(records):
        of = broken.check
        add("check broke", of.deployment, ruling.label(of), of.title, broken.trace, "")
    for kind, outcome in (("limit not held", Outcome.FAIL), ("invalid", Outcome.INVALID)):
        for r in records:
            if not isinstance(r, JudgementRecord) or r.judgement.outcome is not outcome:
                continue
            if outcome is Outcome.INVALID and not r.judgement.required:
                continue
            what = f"{ruling.label(r.check)} · {r.judgement.measurement.name}"
            add(kind, r.check.deployment, what, r.check.title, r.trace, r.judgement.reason)
    return made


def _same(one: Failure, kind: str, deployment: str, trace: Trace) -> bool:
    return (one.kind, one.deployment, one.trace.cause) == (kind, deployment, trace.cause)


def _found(log: str, run_dir: Path | None) -> tuple[Path | None, str]:
    """The log's file where it is still there, and its address seen from the report."""
    if not log or run_dir is None:
        return None, ""
    inside = run_dir / "servers" / Path(log).name
    path = inside if inside.is_file() else Path(log)
    if not path.is_file():
        return None, ""
    try:
        return path, path.resolve().relative_to(run_dir.resolve()).as_posix()
    except ValueError:
        return path, ""


def _around(path: Path, cause: str) -> tuple[tuple[str, bool], ...]:
    """Lines around the last one that holds the cause; none when no line does."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ))
            lines = re.split(r"[\r\n]+", Redactor().redact(file.read().decode("utf-8", "replace")))
    except OSError:
        return ()
    wanted = _words(cause)
    hits = [n for n, line in enumerate(lines) if wanted and wanted in line]
    if not hits:
        return ()
    first, last = max(0, hits[-1] - AROUND), hits[-1] + AROUND + 1
    return tuple(
        (line[:_LONGEST], n == hits[-1])
        for n, line in enumerate(lines[first:last], first)
        if line.strip()
    )


def _words(cause: str) -> str:
    """What of a cause a log line would hold: after `happened: `, up to its end or first break."""
    parts = [cause, *(cause.split(": ", n)[-1] for n in range(1, 4))]
    line = next((p.splitlines()[0] for p in parts[1:2] if p.strip()), cause)
    words = line.strip()[:120]
    return words if len(words) >= _WORDS else cause.strip()[:120] if len(cause) >= _WORDS else ""
