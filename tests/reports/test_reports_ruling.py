"""From records to verdict: which line counts as what."""

from __future__ import annotations

from typing import Any

import pytest

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Judgement, Measurement, Outcome
from acceptance.judging.verdict import Verdict
from reports.reading import Problem, Results
from reports.ruling import closing, verdict_of
from reports.schema import (
    Check,
    EndRecord,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    TestRecord,
    Trace,
)

CHECK = Check(
    deployment="d", lane=Lane.FULL, profile="benchmark", check="a.py::t", nodeid="a.py::t"
)
OTHER = CHECK.model_copy(update={"check": "a.py::u", "nodeid": "a.py::u"})


def run(**more: Any) -> RunRecord:
    deployments = (SelectedDeployment(name="d", digest="x", lane=Lane.FULL),)
    return RunRecord(**{"time": 1.0, "suite_version": "1", "deployments": deployments, **more})


def judged(outcome: Outcome = Outcome.PASS, check: Check = CHECK, **more: Any) -> JudgementRecord:
    required = more.pop("required", True)
    judgement = Judgement(
        outcome=outcome, measurement=Measurement(name="m", value=1), required=required, reason="why"
    )
    return JudgementRecord(**{"time": 2.0, "check": check, "judgement": judgement, **more})


def reported(outcome: str, check: Check = CHECK, **more: Any) -> TestRecord:
    data = {"time": 2.0, "check": check, "phase": "call", "outcome": outcome, **more}
    return TestRecord.model_validate(data)


def end(**more: Any) -> EndRecord:
    return EndRecord(
        **{"time": 3.0, "finished": True, "exit_status": 0, "word": "ACCEPTED", **more}
    )


def ruled(*records: Any, problems: tuple[Problem, ...] = ()) -> tuple[Verdict, str]:
    verdict = verdict_of(Results(records, problems))
    return verdict.verdict, "\n".join(verdict.reasons)


def test_a_whole_run_is_accepted():
    assert ruled(run(), judged(), reported("passed"), end()) == (Verdict.ACCEPTED, "")


def test_without_an_end_it_is_incomplete():
    assert ruled(run(), judged())[0] is Verdict.INCOMPLETE


def test_a_resumed_run_needs_its_own_end():
    assert ruled(run(), end(word="INCOMPLETE"), run(), judged())[0] is Verdict.INCOMPLETE
    assert ruled(run(), end(word="INCOMPLETE"), run(), judged(), end())[0] is Verdict.ACCEPTED


def test_nothing_is_incomplete():
    assert ruled()[0] is Verdict.INCOMPLETE
    assert ruled(end())[0] is Verdict.INCOMPLETE


def test_an_unreadable_line_may_have_held_a_failure():
    verdict, why = ruled(run(), judged(), end(), problems=(Problem(3, "torn"),))
    assert verdict is Verdict.INCOMPLETE
    assert "line 3" in why


def test_a_narrowed_run_is_incomplete():
    assert "-k x" in ruled(run(narrowed=("-k x",)), judged(), end())[1]


def test_the_report_says_no_more_than_the_run_said_itself():
    verdict, why = ruled(run(), judged(), end(word="INCOMPLETE"))
    assert verdict is Verdict.INCOMPLETE
    assert "ended INCOMPLETE" in why
    assert ruled(run(), judged(), end(exit_status=1))[0] is Verdict.INCOMPLETE


def test_a_broken_test_rejects():
    trace = Trace(cause="KeyError: 'usage'")
    verdict, why = ruled(run(), judged(), reported("failed", OTHER, trace=trace), end())
    assert verdict is Verdict.REJECTED
    assert why == "d: u broke: KeyError: 'usage'"


def test_a_failed_teardown_rejects():
    verdict, _ = ruled(run(), judged(), reported("failed", phase="teardown"), end())
    assert verdict is Verdict.REJECTED


def test_a_judged_failure_counts_once_and_an_invalid_one_does_not_reject():
    verdict = verdict_of(
        Results((run(), judged(Outcome.FAIL), reported("failed", judged=True), end()))
    )
    assert verdict.reasons == ("d: t m failed: why",)
    kind, _ = ruled(
        run(), judged(), judged(Outcome.INVALID), reported("failed", judged=True), end()
    )
    assert kind is Verdict.INCOMPLETE


def test_a_server_that_does_not_start_is_one_error():
    failed = ServerRecord(
        time=1, deployment="d", profile="benchmark", outcome="failed", trace=Trace(cause="OOM")
    )
    seen = reported("failed", phase="setup", error="ServerError", trace=Trace(cause="OOM"))
    skipped = reported("skipped", OTHER, phase="setup", trace=Trace(cause="no server"))
    verdict = verdict_of(Results((run(), failed, seen, skipped, end(word="REJECTED"))))
    assert verdict.verdict is Verdict.REJECTED
    assert verdict.reasons[0] == "d: server failed (benchmark): OOM"
    assert verdict.tallies[0].errors == 1
    assert verdict.tallies[0].not_run == 1


def test_a_server_error_that_no_server_record_tells_is_an_error():
    assert ruled(run(), judged(), reported("failed", OTHER, error="ServerError"), end())[0] is (
        Verdict.REJECTED
    )


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        ([reported("skipped", OTHER)], Verdict.INCOMPLETE),
        ([reported("xfailed", OTHER)], Verdict.ACCEPTED),
        (
            [judged(Outcome.NOT_RUN, OTHER, required=False), reported("skipped", OTHER)],
            Verdict.ACCEPTED,
        ),
        ([judged(Outcome.NOT_RUN, OTHER), reported("skipped", OTHER)], Verdict.INCOMPLETE),
        ([judged(Outcome.INVALID, OTHER), judged(check=OTHER, attempt=2)], Verdict.ACCEPTED),
        ([reported("xpassed", OTHER)], Verdict.REJECTED),
    ],
)
def test_what_did_not_run(records, verdict):
    assert ruled(run(), judged(), *records, end())[0] is verdict


def test_cells_of_one_check_and_profiles_are_told_apart():
    cell = CHECK.model_copy(update={"nodeid": "a.py::t[16]", "variant": "16"})
    serving = CHECK.model_copy(update={"profile": "serving"})
    for other in (cell, serving):
        records = (run(), judged(Outcome.INVALID, other), judged(attempt=2), end())
        assert ruled(*records)[0] is Verdict.INCOMPLETE


@pytest.mark.parametrize(
    ("finished", "status", "word", "exit_status"),
    [(True, 0, "ACCEPTED", 0), (False, 2, "INCOMPLETE", 2), (True, 1, "INCOMPLETE", 1)],
)
def test_closing_line(finished, status, word, exit_status):
    results = Results((run(), judged()))
    last = closing(results, finished=finished, pytest_status=status, duration=1)
    assert (last.word, last.exit_status) == (word, exit_status)
    after = verdict_of(Results((*results.records, last)))
    assert after.word == word
