"""The verdict: what may be accepted, in which words, and what stands in the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.deployments.schema import Lane
from acceptance.judging.decide import decide, exit_status
from acceptance.judging.judgement import Outcome
from acceptance.judging.verdict import Facts, Fault, Judged, Selected, Verdict


def judged(outcome: Outcome = Outcome.PASS, **more: Any) -> Judged:
    return Judged(**{"deployment": "d", "check": "c", "outcome": outcome, **more})


def facts(*entries: Judged, lane: Lane = Lane.FULL, **more: Any) -> Facts:
    selected = (Selected(name="d", lane=lane),)
    return Facts(**{"selected": selected, "judged": entries, "finished": True, **more})


@pytest.mark.parametrize(
    ("lane", "word"),
    [
        (Lane.FULL, "ACCEPTED"),
        (Lane.SLICE, "SLICE PASSED"),
        (Lane.REHEARSAL, "REHEARSED"),
        (Lane.SIMULATED, "SIMULATED"),
    ],
)
def test_each_lane_has_its_word(lane, word):
    verdict = decide(facts(judged(), judged(Outcome.MARGINAL), lane=lane))
    assert (verdict.verdict, verdict.word, verdict.reasons) == (Verdict.ACCEPTED, word, ())
    assert verdict.tallies[0].word == "PASSED"
    assert exit_status(verdict, 0) == 0


def test_mixed_lanes_are_worth_the_weakest():
    selected = (Selected(name="d", lane=Lane.FULL), Selected(name="e", lane=Lane.SLICE))
    verdict = decide(facts(judged(), judged(deployment="e"), selected=selected))
    assert verdict.word == "SLICE PASSED"


@pytest.mark.parametrize("required", [True, False])
def test_any_failure_rejects(required):
    verdict = decide(facts(judged(), judged(Outcome.FAIL, required=required, reason="9 > 8")))
    assert verdict.verdict is Verdict.REJECTED
    assert verdict.reasons == ("d: c failed: 9 > 8",)
    assert exit_status(verdict, 0) == 1


def test_any_error_rejects_even_what_is_incomplete_too():
    verdict = decide(facts(faults=(Fault(deployment="d", what="did not start"),), finished=False))
    assert verdict.verdict is Verdict.REJECTED
    assert verdict.reasons[0] == "d: did not start"
    assert any("end" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("outcome", [Outcome.INVALID, Outcome.UNGATED, Outcome.NOT_RUN])
def test_what_is_required_must_be_judged(outcome):
    verdict = decide(facts(judged(), judged(outcome, reason="because", metric="ttft")))
    assert verdict.verdict is Verdict.INCOMPLETE
    assert "c ttft" in verdict.reasons[0]
    assert "because" in verdict.reasons[0]
    assert exit_status(verdict, 0) == 1


@pytest.mark.parametrize("outcome", [Outcome.INVALID, Outcome.UNGATED, Outcome.NOT_RUN])
def test_what_is_not_required_is_counted_and_does_not_block(outcome):
    verdict = decide(facts(judged(), judged(outcome, required=False)))
    assert verdict.accepted
    assert verdict.tallies[0].optional == 1


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (facts(judged(), finished=False), "did not reach its end"),
        (facts(judged(), gaps=("1 torn line",)), "1 torn line"),
        (facts(), "nothing was judged"),
        (facts(judged(Outcome.UNGATED, required=False)), "nothing was judged"),
        (facts(judged(), judged(deployment="e")), "e: has results but was not selected"),
        (Facts(finished=True), "no deployment was selected"),
        (Facts(judged=(judged(deployment=""),), finished=True), "no deployment was selected"),
    ],
)
def test_a_record_that_is_not_whole_is_incomplete(case, told):
    verdict = decide(case)
    assert verdict.verdict is Verdict.INCOMPLETE
    assert told in "\n".join(verdict.reasons)


def test_a_deployment_without_judgement_is_not_carried_by_another():
    selected = (Selected(name="d", lane=Lane.FULL), Selected(name="e", lane=Lane.FULL))
    verdict = decide(facts(judged(), selected=selected))
    assert verdict.verdict is Verdict.INCOMPLETE
    assert [(t.deployment, t.word) for t in verdict.tallies] == [
        ("d", "PASSED"),
        ("e", "INCOMPLETE"),
    ]


def test_a_later_attempt_replaces_an_invalid_one_but_no_failure():
    first = judged(Outcome.INVALID, key="cell-1")
    assert decide(facts(first, judged(key="cell-1", attempt=2))).accepted
    assert not decide(facts(first, judged(key="cell-2", attempt=2))).accepted
    failed = judged(Outcome.FAIL, key="cell-1")
    assert not decide(facts(failed, judged(key="cell-1", attempt=2))).accepted


def test_equal_reasons_are_told_once():
    skipped = [judged(Outcome.NOT_RUN, check=f"c{n}", reason="no server") for n in range(9)]
    verdict = decide(facts(judged(), *skipped))
    assert verdict.reasons == ("d: c0, c1, c2 and 6 more not run: no server",)


def test_ungated_values_are_told_once_whatever_their_distances():
    reasons = [f"no reference gates it; advisory: {number} ms" for number in range(5)]
    cells = [judged(Outcome.UNGATED, check=f"c{n}", reason=r) for n, r in enumerate(reasons)]
    (reason,) = decide(facts(judged(), *cells)).reasons
    assert reason.endswith("and 2 more without a reference: no reference gates it")


def test_pytest_codes_are_kept():
    assert exit_status(decide(facts(judged())), 5) == 5
    assert exit_status(decide(Facts()), 2) == 2


anything = st.builds(
    judged,
    st.sampled_from(Outcome),
    deployment=st.sampled_from(["d", "e", ""]),
    required=st.booleans(),
    attempt=st.integers(1, 3),
    key=st.sampled_from(["a", "b"]),
)
runs = st.builds(
    lambda entries, lane, finished, faults: facts(
        *entries, lane=lane, finished=finished, faults=faults
    ),
    st.lists(anything, max_size=8),
    st.sampled_from(Lane),
    st.booleans(),
    st.lists(st.builds(Fault, deployment=st.just("d"), what=st.just("broke")), max_size=1),
)


@given(runs)
def test_nothing_short_is_accepted_and_nothing_is_short_without_a_reason(case):
    verdict = decide(case)
    failed = any(one.outcome is Outcome.FAIL for one in case.judged) or case.faults
    assert (verdict.verdict is Verdict.REJECTED) is bool(failed)
    assert verdict.accepted is not bool(verdict.reasons)
    assert (exit_status(verdict, 0) == 0) is verdict.accepted
    if verdict.accepted:
        assert case.finished
        assert any(one.outcome in {Outcome.PASS, Outcome.MARGINAL} for one in case.judged)
    if case.selected[0].lane is not Lane.FULL:
        assert "ACCEPTED" not in verdict.word
        assert all(tally.word != "ACCEPTED" for tally in verdict.tallies)


@given(runs, st.randoms())
def test_order_does_not_matter(case, random):
    shuffled = list(case.judged)
    random.shuffle(shuffled)
    again = decide(case.model_copy(update={"judged": tuple(shuffled)}))
    assert again.verdict is decide(case).verdict
