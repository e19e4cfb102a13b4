"""Scoring, on recorded runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from defects_catalogue import Defect
from defects_report import short, summary
from defects_scoring import Ran, Score, Scored, findings, score, score_healthy

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Broken, Judgement, Measurement, Outcome
from reports.reading import Results
from reports.schema import (
    AnyRecord,
    Check,
    EndRecord,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    TestRecord,
    Trace,
)

NAME = "defects-tp"
BEGAN = 1000.0


def defect(**expect: Any) -> Defect:
    return Defect(
        id="one",
        issue="vllm#1",
        row="output",
        broken="something is broken",
        world="simulated",
        inject={"port_taken": True},
        select=("suites/conformance",),
        expect={"check": "test_chat.py::test_shape", "within": 10.0, **expect},
    )


def check(name: str = "conformance/test_chat.py::test_shape", deployment: str = NAME) -> Check:
    return Check(deployment=deployment, check=name, nodeid=f"{name}[{deployment}]")


def judged(
    outcome: Outcome,
    after: float = 2.0,
    *,
    required: bool = True,
    rules: tuple[str, ...] = (),
    attempt: int = 1,
    reason: str = "",
    **of: str,
) -> JudgementRecord:
    broken = tuple(Broken(rule=rule, evidence="seen") for rule in rules)
    measured = Measurement(name=of.pop("metric", "shape"), value=1, broken=broken)
    return JudgementRecord(
        time=BEGAN + after,
        check=check(**of),
        judgement=Judgement(
            outcome=outcome, measurement=measured, required=required, reason=reason
        ),
        attempt=attempt,
    )


def failed(after: float = 3.0, cause: str = "was silent for 3 s") -> ServerRecord:
    return ServerRecord(
        time=BEGAN + after, deployment=NAME, outcome="failed", trace=Trace(cause=cause)
    )


def broke(after: float = 4.0) -> TestRecord:
    return TestRecord(
        time=BEGAN + after, check=check(), phase="call", outcome="failed", error="ReadTimeout"
    )


def ran(*records: AnyRecord, code: int = 1, out: str = "", seconds: float = 5.0) -> Ran:
    chosen = (SelectedDeployment(name=NAME, digest="0", lane=Lane.SIMULATED),)
    first = RunRecord(time=BEGAN, suite_version="0", deployments=chosen)
    end = EndRecord(time=BEGAN + 9, finished=True, exit_status=code, word="REJECTED")
    return Ran(code, out, Results((first, *records, end)), seconds)


PASS = judged(Outcome.PASS, 1.0)
CASES = {
    "as expected": ({}, [PASS, judged(Outcome.FAIL)], Scored.DETECTED, 2.0),
    "too late": ({"within": 1.0}, [judged(Outcome.FAIL)], Scored.OTHERWISE, 2.0),
    "another check": (
        {},
        [judged(Outcome.FAIL, name="conformance/test_auth.py::test_x")],
        Scored.OTHERWISE,
        2.0,
    ),
    "any check": (
        {"check": "*"},
        [judged(Outcome.FAIL, name="conformance/test_auth.py::test_x")],
        Scored.DETECTED,
        2.0,
    ),
    "another outcome": ({}, [broke()], Scored.OTHERWISE, 4.0),
    "breaks off, as expected": ({"outcome": "ERROR"}, [broke()], Scored.DETECTED, 4.0),
    "other words": (
        {"told": "empty"},
        [judged(Outcome.FAIL, reason="id is missing")],
        Scored.OTHERWISE,
        2.0,
    ),
    "right words": (
        {"told": "is .*missing"},
        [judged(Outcome.FAIL, reason="id is missing")],
        Scored.DETECTED,
        2.0,
    ),
    "another metric": (
        {"metric": "tpot_*"},
        [judged(Outcome.FAIL, metric="ttft_mean_ms")],
        Scored.OTHERWISE,
        2.0,
    ),
    "nothing": ({}, [PASS], Scored.MISSED, 5.0),
    "not required": ({}, [PASS, judged(Outcome.FAIL, required=False)], Scored.MISSED, 5.0),
    "another deployment": (
        {},
        [PASS, judged(Outcome.FAIL, deployment="other")],
        Scored.MISSED,
        5.0,
    ),
    "a rule": (
        {"outcome": "INVALID", "rule": "output-length", "verdict": "INCOMPLETE"},
        [judged(Outcome.INVALID, rules=("requests-failed", "output-length"))],
        Scored.DETECTED,
        2.0,
    ),
    "another rule": (
        {"outcome": "INVALID", "rule": "output-length", "verdict": "INCOMPLETE"},
        [judged(Outcome.INVALID, rules=("requests-failed",))],
        Scored.OTHERWISE,
        2.0,
    ),
    "replaced by a second attempt": (
        {"outcome": "INVALID", "rule": "output-length", "verdict": "INCOMPLETE"},
        [judged(Outcome.INVALID, rules=("output-length",)), judged(Outcome.PASS, attempt=2)],
        Scored.MISSED,
        5.0,
    ),
    "the server": (
        {"check": "server", "outcome": "FAILED", "told": "silent"},
        [failed()],
        Scored.DETECTED,
        3.0,
    ),
    "the server, otherwise": (
        {"check": "server", "outcome": "FAILED", "told": "exit code"},
        [failed()],
        Scored.OTHERWISE,
        3.0,
    ),
    "nothing ran": ({}, [], Scored.BROKEN, 5.0),
}


@pytest.mark.parametrize("case", CASES)
def test_scored(case: str) -> None:
    expect, records, scored, seconds = CASES[case]
    found = score(defect(**expect), ran(*records), NAME)
    assert (found.scored, found.seconds) == (scored, seconds)


def test_the_right_outcome_with_another_verdict_is_detected_otherwise() -> None:
    found = score(defect(verdict="INCOMPLETE"), ran(judged(Outcome.FAIL)), NAME)
    assert (found.scored, found.verdict) == (Scored.OTHERWISE, "REJECTED")


def test_what_the_healthy_twin_falls_short_of_says_nothing() -> None:
    alarms = frozenset({(check().check, "FAIL", "shape", "")})
    found = score(defect(check="*"), ran(PASS, judged(Outcome.FAIL)), NAME, alarms)
    assert found.scored is Scored.MISSED
    another = score(defect(check="*"), ran(judged(Outcome.FAIL, metric="x")), NAME, alarms)
    assert another.scored is Scored.DETECTED


def test_one_rule_more_than_on_the_healthy_twin_counts() -> None:
    told = ("client-saturated", "output-length")
    alarms = frozenset({(check().check, "INVALID", "shape", "client-saturated")})
    expected = defect(check="*", outcome="INVALID", verdict="INCOMPLETE", rule="output-length")
    for rules, scored in ((told, Scored.DETECTED), (told[:1], Scored.MISSED)):
        found = score(expected, ran(judged(Outcome.INVALID, rules=rules)), NAME, alarms)
        assert found.scored is scored


def test_seconds_count_from_the_deployment_before() -> None:
    before = [judged(Outcome.PASS, 100.0, deployment="other")]
    found = score(defect(), ran(*before, judged(Outcome.FAIL, 103.0)), NAME)
    assert (found.scored, found.seconds) == (Scored.DETECTED, 3.0)


def test_a_run_that_is_refused() -> None:
    expected = defect(outcome="REFUSED", verdict="NONE", told="driver not loaded")
    no = Ran(4, "ERROR: needs 1 H200 (NVML: driver not loaded)", Results(), 2.0)
    assert score(expected, no, NAME).scored is Scored.DETECTED
    assert score(expected, Ran(4, "ERROR: else", Results(), 2.0), NAME).scored is Scored.MISSED
    assert score(expected, Ran(1, no.out, Results(), 2.0), NAME).scored is Scored.MISSED


@pytest.mark.parametrize(
    ("records", "scored"),
    [
        ([PASS], Scored.HEALTHY),
        ([PASS, judged(Outcome.UNGATED)], Scored.HEALTHY),
        ([PASS, judged(Outcome.FAIL, required=False)], Scored.HEALTHY),
        ([PASS, judged(Outcome.FAIL)], Scored.FALSE_ALARM),
        ([PASS, judged(Outcome.INVALID)], Scored.FALSE_ALARM),
        ([PASS, broke()], Scored.FALSE_ALARM),
        ([failed()], Scored.FALSE_ALARM),
        ([judged(Outcome.UNGATED)], Scored.BROKEN),
        ([], Scored.BROKEN),
    ],
)
def test_a_healthy_twin(records: list[AnyRecord], scored: Scored) -> None:
    assert score_healthy(ran(*records), NAME).scored is scored


def test_a_run_that_was_ended_by_force_counts_for_what_it_found_alone() -> None:
    """What it had not come to yet is neither missed nor healthy."""
    cut = replace(ran(PASS), late=True)
    assert score(defect(), cut, NAME).scored is Scored.BROKEN
    assert score_healthy(cut, NAME).scored is Scored.BROKEN
    cut = replace(ran(PASS, judged(Outcome.FAIL)), late=True)
    assert score(defect(), cut, NAME).scored is Scored.DETECTED
    assert score_healthy(cut, NAME).scored is Scored.FALSE_ALARM


def test_findings_come_in_order_with_what_they_said() -> None:
    found = list(findings(ran(judged(Outcome.FAIL, reason="why"), failed(), broke()).results, NAME))
    assert [one.outcome for one in found] == ["FAIL", "FAILED", "ERROR"]
    assert [one.seconds for one in found] == [2.0, 3.0, 4.0]
    assert found[0].said.startswith("why")


def test_a_campaign_falls_short_of_what_is_neither_detected_nor_known_to_be_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = defect().model_copy(update={"id": "known-miss", "missed": "nobody looks there"})
    monkeypatch.setattr("defects_report.catalogue", lambda: {known.id: known})
    scores = {
        "only-bos": Score(Scored.DETECTED),
        "known-miss": Score(Scored.MISSED),
        "stream-breaks-off": Score(Scored.MISSED),
        "healthy.proxy.x": Score(Scored.FALSE_ALARM),
    }
    assert short(scores) == ["stream-breaks-off", "healthy.proxy.x"]
    assert "1 detected, 2 missed, 1 false alarm" in summary(scores)
