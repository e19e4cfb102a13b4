"""Tolerances from noise, strata, the bootstrap, what reads decoded tokens as a scoring."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_model import BF16, EXPERT, Stub, noisy

from acceptance.correctness.compare import Agreement, agreement
from acceptance.correctness.decoding import as_decoded, as_prefilled
from acceptance.correctness.floor import QUANTITIES, Floor, own_limit, quantity, rules
from acceptance.correctness.noninferiority import upper_bound
from acceptance.correctness.scoring import Scored, greedy, score
from acceptance.correctness.strata import Shape, long_lengths, strata
from acceptance.deployments.schema import Precision
from acceptance.errors import ObservationError

PROMPTS = {f"p{n}": [0, *range(6 + n, 70 + n)] for n in range(6)}


def between(one: Stub, two: Stub) -> Agreement:
    return agreement(score(one.client(), "m", PROMPTS), score(two.client(), "m", PROMPTS))


NEAR, FAR = (
    between(Stub(wrong=BF16), Stub(wrong=noisy(seed=2))),
    between(Stub(), Stub(wrong=EXPERT)),
)


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_tolerance_follows_the_noise_between_its_bounds(name: str) -> None:
    rule = rules()["quantity"][name]
    still = Floor(Precision.BF16, {"repeat": between(Stub(), Stub())})
    assert still.limit(name).upper == rule["least"]["bf16"]
    assert Floor(Precision.FP4).limit(name).upper == rule["least"]["fp4"], "nothing measured yet"
    loud = Floor(Precision.BF16, {"repeat": FAR})
    most = rule["most"]["bf16"]
    assert loud.limit(name).upper == most, "noise that is a defect excuses nothing"
    assert loud.limit(name, most=rule["least"]["bf16"] / 2).upper == rule["least"]["bf16"] / 2
    assert loud.limit(name, factor=2).upper == 2 * most
    assert own_limit(name, Precision.BF16).upper <= most


def test_what_fp8_makes_of_a_checkpoint_is_hardly_multiplied() -> None:
    parts = {"repeat": NEAR, "precision": FAR}
    factor = rules()["quantity"]["mean"]["of_precision"]["fp8"]
    limit = Floor(Precision.FP8, parts).limit("mean", most=math.inf)
    assert limit.upper == pytest.approx(max(factor * FAR.mean, 3 * NEAR.mean))
    assert "precision; of repeat, precision" in limit.source
    assert Floor(Precision.BF16, parts).limit("mean", most=math.inf).upper > limit.upper
    assert own_limit("mean", Precision.FP8).upper > own_limit("mean", Precision.BF16).upper


def test_the_rule_is_told_with_the_noise_it_was_given() -> None:
    floor = Floor(Precision.BF16, {"repeat": NEAR, "batch": between(Stub(), Stub())})
    limit = floor.limit("mean")
    assert limit.upper == pytest.approx(3 * NEAR.mean)
    for told in ("3 x", f"{NEAR.mean:.3g}", "repeat, batch", "tolerances.toml"):
        assert told in limit.source
    assert floor.told.startswith("mean |dlogp| ")
    assert Floor(Precision.BF16).noise("mean") == math.inf


def test_the_largest_difference_about_a_token_is_the_pair_s_or_the_server_s_own() -> None:
    still, far = between(Stub(), Stub()), replace(NEAR, worst=9.0)
    floor = Floor(Precision.FP8, {"repeat": still, "batch": NEAR, "precision": far})
    assert floor.single(still) == NEAR.worst
    assert floor.single(far) == 9.0
    assert Floor(Precision.FP8).single(still) == still.worst == 0.0


def test_a_lost_number_is_infinitely_noisy() -> None:
    assert quantity("dnll", replace(NEAR, dnll={"a": math.inf})) == math.inf
    assert quantity("disagreement", NEAR) == 1 - NEAR.same_best


@given(st.dictionaries(st.text(max_size=3), st.floats(-1, 1), min_size=1, max_size=12))
def test_the_upper_bound_lies_between_mean_and_worst(by_text: dict[str, float]) -> None:
    bound = upper_bound(by_text, resamples=300)
    assert min(by_text.values()) - 1e-9 <= bound <= max(by_text.values()) + 1e-9
    assert bound >= sum(by_text.values()) / len(by_text) - 0.2


def test_one_sided_loss_is_seen_where_noise_is_not() -> None:
    """Noise is symmetric, a defect is one-sided."""
    draw = random.Random(3)
    noise = {str(n): draw.gauss(0, 0.01) for n in range(24)}
    assert upper_bound(noise) < 0.006
    assert upper_bound({name: value + 0.01 for name, value in noise.items()}) > 0.006
    assert upper_bound({}) == math.inf


def test_strata_of_a_long_context() -> None:
    shape = Shape(page=64, chunk=8192, length=65536)
    found = strata(shape)
    assert set(found) == {"first", "page-borders", "chunk-borders", "beyond-8192", "beyond-32768"}
    text = Scored("t", (), (), ())
    assert [p for p in range(50, 80) if found["page-borders"](text, p)] == [62, 63, 64, 65, 66]
    assert found["chunk-borders"](text, 16384 - 2)
    assert not found["chunk-borders"](text, 3)
    assert found["beyond-8192"](text, 8193)
    assert not found["beyond-8192"](text, 8192)
    assert not found["first"](text, 128)
    assert long_lengths(shape) == [8704, 33280]
    assert long_lengths(Shape(page=16, chunk=2048, length=2048)) == []
    assert set(strata(Shape(page=16, chunk=2048, length=2048))) == {"first", "page-borders"}


def test_a_continuation_is_compared_as_it_was_written() -> None:
    said = greedy(Stub().client(), "m", PROMPTS, 7)
    given_tokens = {one.name: [*one.prompt, *one.tokens] for one in said}
    scored = score(Stub().client(), "m", given_tokens)
    found = agreement(as_prefilled(said, scored), as_decoded(said))
    assert (found.positions, found.same_best) == (7 * len(PROMPTS), 1)
    assert found.worst < 1e-12
    with pytest.raises(ObservationError, match="other tokens"):
        as_prefilled(said, score(Stub().client(), "m", PROMPTS))
