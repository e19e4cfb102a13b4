"""From the records of a run to its verdict. The report, the terminal and the exit code all ask
here, so that none can say more than results.jsonl does."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING

from acceptance.judging.decide import decide, exit_status
from acceptance.judging.judgement import Outcome
from acceptance.judging.verdict import Facts, Fault, Judged, RunVerdict, Selected
from reports.schema import (
    Check,
    EndRecord,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    TestRecord,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.reading import Results
    from reports.schema import AnyRecord


# The last results that a verdict was asked of: a report asks several times, of the same object.
_last: list[tuple[weakref.ref[Results], RunVerdict]] = []


def verdict_of(results: Results) -> RunVerdict:
    """The verdict that the records support; less than accepted when the run's own last word was."""
    if not (_last and _last[0][0]() is results):
        _last[:] = [(weakref.ref(results), _verdict_of(results))]
    return _last[0][1]


def _verdict_of(results: Results) -> RunVerdict:
    facts = facts_of(results)
    end = last_end(results.records)
    verdict = _with_status(facts, end.exit_status if end else 0)
    if verdict.accepted and end is not None and end.word != verdict.word:
        gap = f"the run itself ended {end.word}"
        return decide(facts.model_copy(update={"gaps": (*facts.gaps, gap)}))
    return verdict


def facts_of(results: Results) -> Facts:
    """What the verdict rests on. Lines that cannot be read may have held anything: a gap."""
    records = results.records
    gaps = [str(problem) for problem in results.problems]
    gaps += [why for record in records if isinstance(record, RunRecord) for why in record.narrowed]
    end = last_end(records)
    return Facts(
        selected=tuple(Selected(name=d.name, lane=d.lane) for d in selected(records)),
        judged=(*_judgements(records), *(not_run(records))),
        faults=tuple(_faults(records)),
        finished=end is not None and end.finished,
        gaps=tuple(dict.fromkeys(gaps)),
    )


def selected(records: Sequence[AnyRecord]) -> list[SelectedDeployment]:
    """Every deployment that any invocation selected, once, the last word on it."""
    runs = [record for record in records if isinstance(record, RunRecord)]
    return list({d.name: d for run in runs for d in run.deployments}.values())


def last_end(records: Sequence[AnyRecord]) -> EndRecord | None:
    """How the last invocation ended; None while it runs, or when it was cut off."""
    for record in reversed(records):
        if isinstance(record, EndRecord):
            return record
        if isinstance(record, RunRecord):
            return None
    return None


def failed_servers(records: Sequence[AnyRecord]) -> list[ServerRecord]:
    """Servers that did not start, died or hung."""
    return [r for r in records if isinstance(r, ServerRecord) and r.outcome == "failed"]


def broken_tests(records: Sequence[AnyRecord]) -> list[TestRecord]:
    """Tests that failed for a reason no other record gives: neither a judgement nor a server
    that is itself recorded as failed."""
    servers = {(r.deployment, r.profile) for r in failed_servers(records)}
    return [
        r
        for r in records
        if isinstance(r, TestRecord)
        and r.outcome in ("failed", "xpassed")
        and not r.judged
        and not (r.error == "ServerError" and _is_of(r.check, servers))
    ]


def not_run(records: Sequence[AnyRecord]) -> list[Judged]:
    """Skipped tests that recorded no judgement to say why. An expected failure does not block."""
    told = {r.check.nodeid for r in records if isinstance(r, JudgementRecord)}
    return [
        Judged(
            deployment=r.check.deployment,
            check=label(r.check),
            key=key(r.check),
            outcome=Outcome.NOT_RUN,
            required=r.outcome == "skipped",
            reason=r.trace.cause,
        )
        for r in records
        if isinstance(r, TestRecord)
        and r.outcome in ("skipped", "xfailed")
        and r.check.nodeid not in told
    ]


def label(check: Check) -> str:
    """The check as people name it: the test's own name and its parameters."""
    name = check.check.rsplit("::", 1)[-1]
    return f"{name}[{check.variant}]" if check.variant else name


def key(check: Check) -> str:
    """What tells this check from every other of its deployment."""
    return f"{check.profile}|{check.nodeid or label(check)}"


def _is_of(check: Check, servers: set[tuple[str, str]]) -> bool:
    if check.profile:
        return (check.deployment, check.profile) in servers
    return any(deployment == check.deployment for deployment, _ in servers)


def _judgements(records: Sequence[AnyRecord]) -> list[Judged]:
    return [
        Judged(
            deployment=r.check.deployment,
            check=label(r.check),
            key=key(r.check),
            metric=r.judgement.measurement.name,
            outcome=r.judgement.outcome,
            required=r.judgement.required,
            attempt=r.attempt,
            reason=r.judgement.reason,
        )
        for r in records
        if isinstance(r, JudgementRecord)
    ]


def _faults(records: Sequence[AnyRecord]) -> list[Fault]:
    faults = [
        Fault(
            deployment=r.deployment,
            what=f"server failed{f' ({r.profile})' if r.profile else ''}: {r.trace.cause}",
        )
        for r in failed_servers(records)
    ]
    faults += [
        Fault(deployment=r.check.deployment, what=f"{label(r.check)} broke: {r.trace.cause}")
        for r in broken_tests(records)
    ]
    return faults


def closing(results: Results, *, finished: bool, pytest_status: int, duration: float) -> EndRecord:
    """The line that ends a run: the verdict as it stands and the exit status it asks for."""
    facts = facts_of(results).model_copy(update={"finished": finished})
    verdict = _with_status(facts, pytest_status)
    return EndRecord(
        time=time.time(),
        finished=finished,
        exit_status=exit_status(verdict, pytest_status),
        word=verdict.word,
        duration=duration,
    )


def _with_status(facts: Facts, pytest_status: int) -> RunVerdict:
    """A run that pytest itself did not end well is not whole, whatever its records say."""
    verdict = decide(facts)
    if not (verdict.accepted and pytest_status):
        return verdict
    gap = f"pytest ended with status {pytest_status} for a reason that no record gives"
    return decide(facts.model_copy(update={"gaps": (*facts.gaps, gap)}))
