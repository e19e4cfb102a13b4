"""Gates of right answers: what healthy and broken servers get, by simulation and by arithmetic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from acceptance.correctness.benchmarks import Benchmark, benchmark, benchmarks
from acceptance.correctness.gate import ALPHA, Finding, Gate, gate, paired
from acceptance.errors import InputError

ALL = [(b, score) for b in benchmarks().values() for score in b.reference]


def chance(fixed: Gate, share: float, finding: Finding) -> float:
    """Probability of a finding for a server of this share of right answers."""
    answers = stats.binom(fixed.n, share)
    good, bad = float(answers.sf(fixed.pass_at - 1)), float(answers.cdf(fixed.fail_at))
    return {Finding.GOOD: good, Finding.BAD: bad}.get(finding, 1 - good - bad)


@given(st.integers(1, 3000), st.floats(0.3, 0.99), st.floats(0.01, 0.2))
def test_both_errors_stay_below_alpha(n: int, reference: float, margin: float) -> None:
    fixed = gate(n, reference, margin)
    assert chance(fixed, fixed.bar, Finding.GOOD) <= ALPHA
    assert chance(fixed, fixed.bar, Finding.BAD) <= ALPHA
    assert -1 <= fixed.fail_at < fixed.pass_at <= n + 1
    # No looser limit would do: one answer more or less would break alpha.
    assert fixed.pass_at == 0 or stats.binom(n, fixed.bar).sf(fixed.pass_at - 2) > ALPHA
    assert stats.binom(n, fixed.bar).cdf(fixed.fail_at + 1) > ALPHA


@pytest.mark.parametrize(("asked", "score"), ALL, ids=lambda v: getattr(v, "name", ""))
def test_shipped_gates_let_healthy_servers_pass_and_stop_collapse(
    asked: Benchmark, score: object
) -> None:
    fixed = gate(asked.questions, score.score, score.margin)  # type: ignore[attr-defined]
    assert fixed.power > 0.85, fixed.told
    assert chance(fixed, fixed.reference, Finding.BAD) < 1e-3
    assert chance(fixed, fixed.reference - 3 * fixed.margin, Finding.BAD) > 0.95
    assert f"power {fixed.power:.0%}" in fixed.told


def test_n_too_small_never_passes_and_says_so() -> None:
    fixed = gate(10, 0.95, 0.01)
    assert (fixed.pass_at, fixed.power) == (11, 0.0)
    assert fixed.finding(10) is Finding.INCONCLUSIVE
    assert gate(1319, 0.954, 0.025).finding(1258) is Finding.GOOD
    assert gate(1319, 0.954, 0.025).finding(53) is Finding.BAD


@pytest.mark.parametrize("wrong", [(0, 0.9, 0.1), (9, 0.9, 0.0), (9, 0.9, 0.9), (9, 1.1, 0.1)])
def test_what_is_no_gate(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="no gate"):
        gate(*wrong)
    with pytest.raises(ValueError, match="right answers"):
        gate(9, 0.9, 0.1).finding(10)


def answers(n: int, wrong: set[int]) -> dict[str, bool]:
    return {f"q{i}": i not in wrong for i in range(n)}


def test_paired_sees_what_two_scores_do_not() -> None:
    """40 of 1319 lost and none won is 3 points; unpaired, its interval is as wide as that."""
    found = paired(answers(1319, set(range(60))), answers(1319, set(range(100))))
    assert (found.only_before, found.only_after) == (40, 0)
    assert found.mcnemar < 1e-6
    assert found.finding(0.015) is Finding.BAD
    assert paired(answers(1319, {1, 2}), answers(1319, {2, 3})).finding(0.015) is Finding.GOOD
    assert paired(answers(40, {1}), answers(40, {2, 3})).finding(0.015) is Finding.INCONCLUSIVE


def test_a_paired_pass_of_a_worse_server_is_rare() -> None:
    draw, passed = random.Random(5), 0
    for _ in range(300):
        before = {f"q{i}": draw.random() < 0.95 for i in range(400)}
        after = {q: right and draw.random() > 0.06 for q, right in before.items()}
        passed += paired(before, after).finding(0.04) is Finding.GOOD
    assert passed <= 0.05 * 300 + 8


def test_other_questions_are_not_paired() -> None:
    for one, two in (({}, {}), (answers(3, set()), answers(4, set()))):
        with pytest.raises(ValueError, match="same questions"):
            paired(one, two)


def test_references_are_found_by_model() -> None:
    gsm8k = benchmark("gsm8k")
    for model, n in (("deepseek-ai/DeepSeek-R1-0528", 1319), ("nvidia/DeepSeek-R1-FP4", 1319)):
        score = gsm8k.score_of(model)
        assert score is not None
        assert score.n == n
    assert gsm8k.score_of("deepseek-ai/DeepSeek-V3-0324") is None
    assert (gsm8k.asked("smoke"), gsm8k.asked("gate")) == (200, 1319)
    assert (gsm8k.temperature, gsm8k.top_p) == (0.6, 0.95)
    with pytest.raises(InputError, match="no benchmark is called gsm9k"):
        benchmark("gsm9k")
