"""From what a run left to what the suite made of a defect."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from acceptance.judging.judgement import Outcome
from reports.ruling import broken_tests, verdict_of
from reports.schema import JudgementRecord, ServerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from defects_catalogue import Defect, Expected

    from reports.reading import Results


Alarms = frozenset[tuple[str, ...]]  # keys of findings


class Scored(StrEnum):
    """detected: as the entry says it must be. otherwise: the run fell short, for another reason or
    too late. missed: nothing fell short. false alarm: a healthy twin fell short."""

    DETECTED = "detected"
    OTHERWISE = "detected otherwise"
    MISSED = "missed"
    HEALTHY = "healthy"
    FALSE_ALARM = "false alarm"
    UNDETECTABLE = "undetectable"
    BROKEN = "not scored"


@dataclass(frozen=True)
class Finding:
    """One thing that a run found wrong. seconds: since the run turned to the deployment. said:
    reason or cause."""

    check: str
    outcome: str
    seconds: float
    said: str = ""
    metric: str = ""
    rules: tuple[str, ...] = ()

    @property
    def keys(self) -> frozenset[tuple[str, ...]]:
        """What tells it from what another run found: check, outcome, metric, and each rule."""
        of = (self.check, self.outcome, self.metric)
        return frozenset((*of, rule) for rule in self.rules or ("",))

    def fits(self, expected: Expected) -> bool:
        return (
            self.outcome == expected.outcome
            and (self.check == expected.check or fnmatchcase(self.check, f"*{expected.check}"))
            and (not expected.metric or fnmatchcase(self.metric, expected.metric))
            and (not expected.rule or expected.rule in self.rules)
            and bool(re.search(expected.told, self.said, re.DOTALL))
        )


@dataclass(frozen=True)
class Ran:
    """A run of the suite that has ended. out: what it printed. seconds: in all. late: whether it
    was ended by force, so that what it did not find says nothing."""

    code: int
    out: str
    results: Results
    seconds: float
    late: bool = False


@dataclass(frozen=True)
class Score:
    """seconds: from the start of the run to the finding that counts. by: that finding, for a
    person. verdict: of the deployment."""

    scored: Scored
    seconds: float = 0.0
    by: str = ""
    verdict: str = ""


def findings(results: Results, deployment: str) -> Iterator[Finding]:
    """What keeps a deployment from being accepted, in the order it was found."""
    records = results.records
    began = _began(results, deployment)
    broken = {id(test) for test in broken_tests(records)}
    last: dict[tuple[str, str], int] = {}  # attempt that counts, as for the verdict
    for record in records:
        if isinstance(record, JudgementRecord):
            key = (record.check.nodeid, record.judgement.measurement.name)
            last[key] = max(last.get(key, 1), record.attempt)
    for record in records:
        since = record.time - began
        if isinstance(record, ServerRecord):
            if record.outcome == "failed" and record.deployment == deployment:
                excerpt = "\n".join(record.trace.excerpt)
                said = f"{record.trace.cause}\n{excerpt}\n{record.trace.hint}"
                yield Finding("server", "FAILED", since, said)
        elif isinstance(record, JudgementRecord):
            judged = record.judgement
            measured = judged.measurement
            replaced = record.attempt < last[record.check.nodeid, measured.name]
            short = judged.outcome is Outcome.FAIL or (
                judged.outcome is Outcome.INVALID and not replaced
            )
            if short and judged.required and record.check.deployment == deployment:
                yield Finding(
                    record.check.check,
                    judged.outcome.value,
                    since,
                    f"{judged.reason}\n{measured.value}\n{measured.evidence}",
                    measured.name,
                    tuple(rule.rule for rule in measured.broken),
                )
        elif id(record) in broken and record.check.deployment == deployment:  # type: ignore[union-attr]
            said = f"{record.error}: {record.trace.cause}"  # type: ignore[union-attr]
            yield Finding(record.check.check, "ERROR", since, said)  # type: ignore[union-attr]


def _began(results: Results, deployment: str) -> float:
    """When a run turned to this deployment: when it began, or was done with the one before."""
    last = 0.0
    for record in results.records:
        check = getattr(record, "check", None)
        if deployment in (getattr(record, "deployment", ""), check.deployment if check else ""):
            break
        last = record.time
    return last


def verdict_on(results: Results, deployment: str) -> str:
    """REJECTED, INCOMPLETE or PASSED, of one deployment of the run; NONE where nothing ran."""
    for tally in verdict_of(results).tallies:
        if tally.deployment == deployment:
            return tally.word
    return "NONE"


def score(defect: Defect, ran: Ran, deployment: str, alarms: Alarms = frozenset()) -> Score:
    """What the suite made of an injected defect. alarms: what falls short on the healthy twin as
    well, and so says nothing here."""
    expected = defect.expect
    assert expected is not None
    if expected.outcome == "REFUSED":
        fits = bool(re.search(expected.told, ran.out)) and ran.code not in (0, 1)
        how = Scored.DETECTED if fits and ran.seconds <= expected.within else Scored.MISSED
        return Score(how, ran.seconds, "the run is refused" if fits else "", "NONE")
    found = [one for one in findings(ran.results, deployment) if not one.keys <= alarms]
    verdict = verdict_on(ran.results, deployment)
    right = next((one for one in found if one.fits(expected)), None)
    if right and verdict == expected.verdict and right.seconds <= expected.within:
        return Score(Scored.DETECTED, right.seconds, told(right), verdict)
    if found:
        first = right or found[0]
        return Score(Scored.OTHERWISE, first.seconds, told(first), verdict)
    seen = any(r for r in ran.results.records if isinstance(r, JudgementRecord | ServerRecord))
    if ran.late or not seen:
        return Score(Scored.BROKEN, ran.seconds, _last_line(ran.out), verdict)
    return Score(Scored.MISSED, ran.seconds, "", verdict)


def score_healthy(ran: Ran, deployment: str) -> Score:
    """What the suite made of a healthy twin: anything that falls short is a false alarm. One
    in which nothing passed, or that did not end, shows nothing."""
    found = list(findings(ran.results, deployment))
    verdict = verdict_on(ran.results, deployment)
    passed = any(
        r.judgement.outcome in (Outcome.PASS, Outcome.MARGINAL)
        for r in ran.results.records
        if isinstance(r, JudgementRecord) and r.check.deployment == deployment
    )
    if found:
        return Score(Scored.FALSE_ALARM, found[0].seconds, told(found[0]), verdict)
    if ran.late or not passed:
        return Score(Scored.BROKEN, ran.seconds, _last_line(ran.out), verdict)
    return Score(Scored.HEALTHY, ran.seconds, "", verdict)


def told(finding: Finding) -> str:
    """One line: which check, and what it said."""
    check = finding.check.rpartition("::")[2]
    what = ", ".join(filter(None, (finding.metric, *finding.rules)))
    line = next((line for line in finding.said.splitlines() if line.strip()), "")
    named = what if what and what not in check else ""
    return " ".join(filter(None, (check, finding.outcome, named))) + (
        f": {line[:160]}" if line else ""
    )


def _last_line(out: str) -> str:
    return next((line for line in reversed(out.splitlines()) if line.strip()), "")[:200]
