"""A record of several sessions: what of the earlier ones counts, and what is still to be run.

A session begins with a run record. One that was broken off is continued by `--resume`, which adds
to the record and takes nothing out of it, so which lines still count is decided here, for the
verdict, the report and the comparison alike:

- a FAIL stands for ever, and so does a test that broke, and a server that failed;
- anything else of a check is replaced by what a later session says of the same check;
- what broke because somebody ended a process of the suite says nothing of the deployment: it is
  run again, and then replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.judging.judgement import Outcome
from acceptance.serving.custody import LOST_WARDEN
from reports.schema import JudgementRecord, RunRecord, ServerRecord, TestRecord, Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.schema import AnyRecord

CRASHED = "crashed while running"  # pytest-xdist of a worker that died
NOT_TAKEN = "ObservationError"  # a measurement that could not be taken


def standing(records: Sequence[AnyRecord]) -> tuple[list[AnyRecord], list[AnyRecord]]:
    """The records that count, and those that a later session replaced; both in order."""
    last: dict[str, int] = {}
    session = 0
    for record in records:
        if isinstance(record, RunRecord):
            session += 1
        elif isinstance(record, JudgementRecord | TestRecord) and record.check.nodeid:
            last[record.check.nodeid] = session
    sessions, session = session, 0
    kept: list[AnyRecord] = []
    replaced: list[AnyRecord] = []
    for record in records:
        session += isinstance(record, RunRecord)
        gone = sessions > 1 and _replaced(record, session, sessions, last)
        (replaced if gone else kept).append(record)
    return kept, replaced


def done(records: Sequence[AnyRecord]) -> frozenset[str]:
    """Node ids of the tests about which everything is said: resuming runs the others. records:
    those that stand."""
    judged: dict[str, list[JudgementRecord]] = {}
    tested: dict[str, list[TestRecord]] = {}
    for record in records:
        if isinstance(record, JudgementRecord):
            judged.setdefault(record.check.nodeid, []).append(record)
        elif isinstance(record, TestRecord):
            tested.setdefault(record.check.nodeid, []).append(record)
    names = judged.keys() | tested.keys()
    return frozenset(
        name for name in names if name and _is_done(judged.get(name, []), tested.get(name, []))
    )


def casualty(record: TestRecord) -> bool:
    """Whether a test failed for a process of the suite that was ended, or for a measurement that
    could not be taken: neither speaks against the deployment."""
    if record.outcome != "failed" or record.judged:
        return False
    crashed = not record.error and CRASHED in record.trace.cause
    return crashed or record.error == NOT_TAKEN or _of_warden(record.trace)


def _is_done(judged: Sequence[JudgementRecord], tested: Sequence[TestRecord]) -> bool:
    outcomes = [record.judgement.outcome for record in judged]
    if Outcome.FAIL in outcomes:
        return True
    if any(casualty(record) for record in tested):
        return False
    if any(record.outcome in ("failed", "xpassed") for record in tested):
        return True
    if any(record.outcome == "skipped" for record in tested):
        # Its reason may have gone, unless it is that the deployment cannot do this.
        skipped = [r.judgement for r in judged if r.judgement.outcome is Outcome.NOT_RUN]
        return bool(skipped) and not any(judgement.required for judgement in skipped)
    return any(record.phase == "call" for record in tested)


def _replaced(record: AnyRecord, session: int, sessions: int, last: dict[str, int]) -> bool:
    if isinstance(record, ServerRecord):
        return record.outcome == "failed" and session < sessions and _of_warden(record.trace)
    if isinstance(record, JudgementRecord):
        again = session < last.get(record.check.nodeid, 0)
        return again and record.judgement.outcome is not Outcome.FAIL
    if isinstance(record, TestRecord):
        again = session < last.get(record.check.nodeid, 0)
        told = record.outcome not in ("failed", "xpassed") or record.judged or casualty(record)
        return again and told
    return False


def _of_warden(trace: Trace) -> bool:
    return any(LOST_WARDEN in text for text in (trace.cause, *trace.excerpt))
