"""Judging: what may pass, what never may, and what the margin says."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.judging.judge import judge, margin
from acceptance.judging.judgement import Broken, Judgement, Kind, Limit, Measurement, Outcome
from acceptance.judging.references import Match, Reference

HELD = {Outcome.PASS, Outcome.MARGINAL}
numbers = st.floats(allow_nan=False, allow_infinity=False)
sides = st.none() | numbers


def measured(value: object, unit: str = "ms", **more: object) -> Measurement:
    return Measurement.model_validate({"name": "m", "value": value, "unit": unit, **more})


def limited(kind: Kind = Kind.CEILING, **more: object) -> Limit:
    return Limit.model_validate({"kind": kind, "source": "test", "unit": "ms", **more})


gates = st.builds(
    lambda kind, lower, upper: limited(kind, lower=lower, upper=upper),
    st.sampled_from([Kind.FLOOR, Kind.CEILING, Kind.BASELINE]),
    sides,
    sides,
)


def test_broken_validity_is_invalid_even_when_the_value_holds():
    broken = (Broken(rule="completed", evidence="15 of 16 requests"),)
    result = judge(measured(1.0, broken=broken), limited(upper=2))
    assert result.outcome is Outcome.INVALID
    assert "15 of 16" in result.reason


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("limit", [None, limited(upper=2), limited(Kind.EXPECTED, expected=1)])
def test_missing_value_is_invalid(value, limit):
    result = judge(measured(value), limit)
    assert result.outcome is Outcome.INVALID
    assert "missing" in result.reason


def test_no_reference_is_ungated():
    assert judge(measured(1.0), None).outcome is Outcome.UNGATED
    assert judge(measured(1.0), limited()).outcome is Outcome.UNGATED


@pytest.mark.parametrize("value", [True, "fast", 10**400])
def test_what_is_no_number_cannot_hold_a_number(value):
    assert judge(measured(value), limited(upper=2)).outcome is Outcome.INVALID


def test_units_must_agree():
    result = judge(measured(1.0, unit="s"), limited(upper=2))
    assert result.outcome is Outcome.INVALID
    assert "limit in ms" in result.reason


def test_crossing_a_physical_bound_is_invalid():
    bound = limited(Kind.BOUND, lower=1.2)
    result = judge(measured(1.1), limited(upper=2), bounds=[bound])
    assert result.outcome is Outcome.INVALID
    assert result.limit == bound
    assert judge(measured(1.2), limited(upper=2), bounds=[bound]).outcome is Outcome.PASS


def test_a_bound_alone_gates_nothing():
    bound = limited(Kind.BOUND, lower=1.2)
    assert judge(measured(1.1), bound).outcome is Outcome.INVALID
    assert judge(measured(1.3), bound).outcome is Outcome.UNGATED


@pytest.mark.parametrize(
    ("value", "expected", "holds"),
    [
        ("fp8", "fp8", True),
        ("fp8", "auto", False),
        (True, True, True),
        (True, 1, False),
        (0, False, False),
        (16, 16, True),
        (16.0, 16, True),
        ("16", 16, False),
    ],
)
def test_expected_is_equality(value, expected, holds):
    result = judge(measured(value, unit=""), limited(Kind.EXPECTED, expected=expected, unit=""))
    assert (result.outcome is Outcome.PASS) is holds
    assert (result.outcome is Outcome.FAIL) is not holds


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (94.9, Outcome.FAIL),
        (95.0, Outcome.MARGINAL),
        (96.0, Outcome.MARGINAL),
        (100.0, Outcome.PASS),
        (104.0, Outcome.MARGINAL),
        (105.1, Outcome.FAIL),
    ],
)
def test_baseline_has_two_sides(value, outcome):
    reference = Reference(
        deployment="*", metric="m", baseline=100, tolerance=0.05, unit="ms", source="test"
    )
    assert judge(measured(value), reference).outcome is outcome


def test_zero_is_held_without_being_marginal():
    assert judge(measured(0), limited(upper=0)).outcome is Outcome.PASS
    failed = judge(measured(3), limited(upper=0))
    assert (failed.outcome, failed.margin) == (Outcome.FAIL, -3)


def test_reason_says_value_limit_and_why_this_reference():
    reference = Reference(deployment="fp8-*", metric="m", ceiling=15.85, unit="ms", source="recipe")
    result = judge(measured(16.0), Match(reference, "recipe.toml: deployment fp8-*"))
    assert result.reason == "16 ms, at most 15.85 ms (recipe.toml: deployment fp8-*)"
    assert result.limit is not None
    assert result.limit.source == "recipe"


def test_negative_marginal_band_is_refused():
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="marginal"):
            judge(measured(1.0), None, marginal=bad)


@given(st.floats() | st.none(), gates, st.floats(0, 10))
def test_holding_means_inside_and_failing_means_outside(value, limit, band):
    result = judge(measured(value), limit, marginal=band)
    if result.outcome in HELD:
        assert value is not None
        assert limit.lower is None or value >= limit.lower
        assert limit.upper is None or value <= limit.upper
    if result.outcome is Outcome.FAIL:
        assert value is not None
        assert math.isfinite(value)
        assert (limit.lower is not None and value < limit.lower) or (
            limit.upper is not None and value > limit.upper
        )


@given(numbers, gates)
def test_sign_of_the_margin_agrees_with_the_outcome(value, limit):
    result = judge(measured(value), limit)
    if result.outcome is Outcome.UNGATED:
        assert result.margin is None
        return
    assert result.margin is not None
    assert math.isfinite(result.margin)
    assert (result.margin >= 0) is (result.outcome in HELD) or result.margin == 0


@given(numbers, gates, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_band_only_turns_pass_into_marginal(value, limit, one, two):
    narrow, wide = sorted([one, two])
    before = judge(measured(value), limit, marginal=narrow).outcome
    after = judge(measured(value), limit, marginal=wide).outcome
    assert before is after or (before, after) == (Outcome.PASS, Outcome.MARGINAL)


@given(st.floats(0.1, 1e9), st.floats(0.1, 1e9), st.floats(0.1, 1e9))
def test_margin_is_a_share_of_the_limit_and_falls_toward_it(ceiling, one, two):
    limit = limited(upper=ceiling)
    assert margin(ceiling, limit) == 0
    assert margin(one, limit) == pytest.approx(1 - one / ceiling)
    low, high = sorted([one, two])
    assert margin(low, limit) >= margin(high, limit)


@given(st.floats() | st.none() | st.booleans() | st.text(max_size=5) | st.integers(), gates)
def test_judgement_survives_the_disk(value, limit):
    result = judge(measured(value), limit)
    again = Judgement.model_validate(json.loads(result.model_dump_json()))
    assert again.outcome is result.outcome
    assert again.margin == result.margin


@pytest.mark.parametrize(
    "limit",
    [
        Limit(kind=Kind.CEILING, upper=1.0, source="here"),
        Limit(kind=Kind.EXPECTED, expected=1, source="here"),
    ],
)
def test_what_is_only_shown_does_not_fail(limit: Limit) -> None:
    """Beyond its limit it is UNGATED, with the distance; an invalid value stays INVALID."""
    beyond = Measurement(name="x", value=2)
    assert judge(beyond, limit).outcome is Outcome.FAIL
    assert judge(beyond, limit, required=False).outcome is Outcome.UNGATED
    missing = Measurement(name="x", value=None)
    assert judge(missing, limit, required=False).outcome is Outcome.INVALID
