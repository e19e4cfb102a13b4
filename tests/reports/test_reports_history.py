"""What the report tells of time: sessions that a run was put together from, expected and actual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Judgement, Measurement, Outcome
from reports.facts import facts, gpu_hours
from reports.history import history, parts
from reports.jobsummary import summary
from reports.reading import Results
from reports.schema import (
    Check,
    EndRecord,
    EstimateRecord,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    Spent,
    TestRecord,
)
from reports.sessions import standing
from reports.summary import render_page, render_summary

if TYPE_CHECKING:
    from reports.schema import AnyRecord


def run(time: float, host: str = "node7") -> RunRecord:
    return RunRecord(
        time=time,
        suite_version="0.1",
        host=host,
        deployments=(SelectedDeployment(name="d", digest="1", lane=Lane.FULL, gpus="4xB200"),),
    )


def judged(time: float, name: str, outcome: Outcome = Outcome.PASS) -> list[AnyRecord]:
    check = Check(deployment="d", lane=Lane.FULL, area="conformance", check=name, nodeid=name)
    judgement = Judgement(outcome=outcome, measurement=Measurement(name="m", value=1))
    ended = TestRecord(
        time=time, check=check, phase="call", outcome="passed", duration=1.0, judged=True
    )
    return [JudgementRecord(time=time, check=check, judgement=judgement), ended]


def end(time: float, word: str, *, finished: bool, duration: float) -> EndRecord:
    return EndRecord(
        time=time, finished=finished, exit_status=0 if finished else 2, word=word, duration=duration
    )


def results(*lines: AnyRecord) -> Results:
    kept, replaced = standing(lines)
    return Results(tuple(kept), (), tuple(replaced))


def spent(start: float, cells: float, whole: float, count: int) -> Spent:
    return Spent(
        start_seconds=start, cell_seconds=cells, whole_seconds=whole, starts=1, cells=count
    )


def estimate(name: str, expected: Spent, actual: Spent, **more: Any) -> EstimateRecord:
    asked: dict[str, Any] = {"time": 9.0, "finished": True, **more}
    return EstimateRecord(deployment=name, expected=expected, actual=actual, **asked)


def thrice() -> Results:
    """Killed, then stopped by a person, then whole; one check is judged in two of them."""
    ready = ServerRecord(
        time=200.0, deployment="d", lane=Lane.FULL, outcome="ready", phases={"loading": 100.0}
    )
    return results(
        run(100.0, "node7"),
        ready,
        *judged(210.0, "t::a"),
        *judged(220.0, "t::b", Outcome.UNGATED)[:1],
        run(10_000.0, "<i>node8</i>"),
        *judged(10_010.0, "t::b"),
        end(10_020.0, "INCOMPLETE", finished=False, duration=20.0),
        run(20_000.0),
        *judged(20_010.0, "t::c"),
        *judged(20_011.0, "t::d"),
        end(20_030.0, "ACCEPTED", finished=True, duration=30.0),
    )


def test_every_session_says_when_how_and_how_much():
    made = history(thrice())
    assert [one.number for one in made] == [1, 2, 3]
    assert [(one.run.time, one.ended) for one in made] == [
        (100.0, 220.0),
        (10_000.0, 10_020.0),
        (20_000.0, 20_030.0),
    ]
    assert [one.how for one in made] == [
        "was killed: it recorded no end",
        "broke off before its last test, INCOMPLETE",
        "reached its end, ACCEPTED",
    ]
    assert [(one.judged, one.again) for one in made] == [(2, 1), (1, 0), (2, 0)]
    assert [one.seconds for one in made] == [120.0, 20.0, 30.0]


def test_the_report_shows_a_resumed_run_as_one():
    html = render_page(thrice())
    assert "This run was put together from 3 sessions" in html
    assert "was killed: it recorded no end" in html
    assert "&lt;i&gt;node8" in html
    assert "<i>" not in html
    assert html.index('id="history"') < html.index('id="checks"')
    told = dict(facts(thrice()))
    assert told["Began"].endswith("00:01:40 UTC")
    assert told["Lasted"] == "2 min 50 s in 3 sessions"
    assert "in 3 sessions" in summary(thrice())


def test_a_run_of_one_session_says_nothing_of_sessions():
    whole = results(
        run(1.0), *judged(2.0, "t::a"), end(3.0, "ACCEPTED", finished=True, duration=2.0)
    )
    html = render_summary(whole)
    assert "put together" not in html
    assert 'id="history"' not in html
    assert len(history(whole)) == 1


def test_the_last_session_may_go_on():
    assert history(results(run(1.0)))[0].how.startswith("goes on, or was killed")
    assert history(Results()) == []


def test_a_killed_session_held_its_gpus_until_its_last_line():
    assert gpu_hours(thrice().records) * 3600 == pytest.approx(4 * (210.0 - 100.0))


def test_expected_and_actual_of_each_part_and_in_all():
    one = estimate("d", spent(60, 100, 200, 2), spent(90, 50, 200, 2))
    two = estimate("e", spent(40, 0, 50, 0), spent(0, 0, 10, 0), finished=False)
    found = parts((run(1.0), one, two))
    assert [(p.deployment, p.name, p.expected, p.actual) for p in found] == [
        ("d", "starts of servers", 60, 90),
        ("d", "cells", 100, 50),
        ("d", "other checks", 40, 60),
        ("d", "in all", 200, 200),
        ("e", "starts of servers", 40, 0),
        ("e", "other checks", 10, 10),
        ("e", "in all", 50, 10),
        ("", "starts of servers", 100, 90),
        ("", "cells", 100, 50),
        ("", "other checks", 50, 70),
        ("", "in all", 250, 210),
    ]
    assert [p.times for p in found[:4]] == [1.5, 0.5, 1.5, 1.0]
    assert [p.finished for p in found] == [True] * 6 + [False] + [True] * 3 + [False]
    assert [(p.done, p.planned) for p in found[:2]] == [(1, 1), (2, 2)]


def test_of_a_resumed_deployment_the_first_plan_is_held_against_all_sessions():
    first = estimate("d", spent(60, 100, 200, 3), spent(60, 30, 120, 1), finished=False)
    second = estimate("d", spent(60, 70, 140, 2), spent(60, 80, 150, 2))
    whole = parts((first, second))[-1]
    assert (whole.expected, whole.actual, whole.finished) == (200, 270, True)
    cells = parts((first, second))[1]
    assert (cells.done, cells.planned, cells.actual) == (3, 3, 110)


def test_the_report_shows_expected_and_actual():
    html = render_summary(
        results(run(1.0), estimate("d", spent(60, 100, 200, 2), spent(90, 50, 0, 1)))
    )
    assert "What was expected, and what it took" in html
    for told in (
        "1 min 00 s</td>",
        "1 min 30 s</td>",
        ">1.50</td>",
        ">1 of 2</td>",
        "3 min 20 s</td>",
    ):
        assert told in html
    assert "This run was put together" not in html


def test_nothing_expected_is_no_division_by_nothing():
    nothing = Spent()
    assert [p.times for p in parts((estimate("d", nothing, nothing),))] == [None, None, None]
