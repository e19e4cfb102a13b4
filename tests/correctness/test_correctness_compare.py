"""The comparers, with faults planted in one of two equal accounts."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.correctness.account import Account
from acceptance.correctness.compare import agreement, divergence, first_splits
from acceptance.correctness.scoring import Greedy, Scored
from acceptance.errors import ObservationError

LOGPROBS = st.integers(-2_000_000, 0).map(lambda n: n / 100_000)


def of(name: str, tokens: list[int], values: list[float], best: list[int]) -> Scored:
    tops = [{token: value} for token, value in zip(tokens[1:], values, strict=True)]
    return Scored(name, tuple(tokens), tuple(values), tuple(best), tuple(tops))


@st.composite
def scorings(draw: st.DrawFn) -> list[Scored]:
    """One to three texts of two to thirty tokens."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        positions = draw(st.integers(1, 29))
        tokens = draw(st.lists(st.integers(0, 511), min_size=positions + 1, max_size=positions + 1))
        values = draw(st.lists(LOGPROBS, min_size=positions, max_size=positions))
        best = draw(st.lists(st.integers(0, 511), min_size=positions, max_size=positions))
        made.append(of(f"text{number}", tokens, values, best))
    return made


def long_text(seed: int = 1, positions: int = 600) -> Scored:
    draw = random.Random(seed)
    return of(
        "long",
        [draw.randrange(512) for _ in range(positions + 1)],
        [-draw.expovariate(0.5) for _ in range(positions)],
        [draw.randrange(512) for _ in range(positions)],
    )


def with_logprobs(scored: Scored, values: list[float]) -> list[Scored]:
    return [of(scored.name, list(scored.tokens), values, list(scored.best))]


@given(scorings())
def test_equal_accounts_agree(scored: list[Scored]) -> None:
    found = agreement(scored, list(reversed(scored)))
    assert found.positions == sum(len(one.logprobs) for one in scored)
    assert (found.mean, found.median, found.p90, found.p999, found.worst) == (0, 0, 0, 0, 0)
    assert (found.same_best, found.kl) == (1, 0)
    assert set(found.dnll.values()) == {0}


@given(scorings(), st.data())
def test_one_bad_position_is_the_worst_and_is_named(
    scored: list[Scored], data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(scored) - 1))
    bad = scored[which]
    place = data.draw(st.integers(0, len(bad.logprobs) - 1))
    off = data.draw(st.floats(0.5, 50))
    values = [v - off * (at == place) for at, v in enumerate(bad.logprobs)]
    found = agreement(scored, [*scored[:which], *with_logprobs(bad, values), *scored[which + 1 :]])
    assert found.worst == pytest.approx(off)
    assert found.worst_at == f"{bad.name}[{place + 1}]"
    assert found.mean == pytest.approx(off / found.positions)


@given(scorings(), st.data(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_number_is_infinitely_far(scored: list[Scored], data: st.DataObject, bad: float) -> None:
    """Also where both sides have none."""
    first = scored[0]
    place = data.draw(st.integers(0, len(first.logprobs) - 1))
    values = [bad if at == place else v for at, v in enumerate(first.logprobs)]
    broken = [*with_logprobs(first, values), *scored[1:]]
    for other in (scored, broken):
        found = agreement(other, broken)
        assert found.worst == math.inf
        assert found.mean == math.inf


@given(scorings(), scorings())
def test_agreement_is_symmetric(left: list[Scored], right: list[Scored]) -> None:
    right = [replace(b, name=a.name) for a, b in zip(left, right, strict=False)]
    try:
        one, other = agreement(left, right), agreement(right, left)
    except ObservationError:
        with pytest.raises(ObservationError):
            agreement(right, left)
        return
    assert {n: -value for n, value in one.dnll.items()} == pytest.approx(other.dnll)
    alike = {"worst_at": "", "dnll": {}, "kl": 0.0}
    assert replace(one, **alike) == replace(other, **alike)


def test_shifted_log_probabilities_are_far_apart() -> None:
    text = long_text()
    found = agreement([text], with_logprobs(text, [*text.logprobs[1:], text.logprobs[0]]))
    assert found.median > 0.5


@pytest.mark.parametrize("temperature", [0.6, 0.9, 1.2])
def test_another_temperature_is_seen(temperature: float) -> None:
    text = long_text()
    found = agreement([text], with_logprobs(text, [v / temperature for v in text.logprobs]))
    assert found.median > 0.09
    assert found.same_best == 1, "the order of tokens is the same at any temperature"


def test_a_lost_expert_is_seen_and_bf16_is_not() -> None:
    """A share of the positions is off by much, as when one expert of sixteen computes nothing."""
    text, draw = long_text(), random.Random(2)
    bf16 = [v + draw.gauss(0, 0.014) for v in text.logprobs]
    hit = [v + draw.gauss(0, 1.0) * (draw.random() < 0.4) for v in bf16]
    assert agreement([text], with_logprobs(text, bf16)).mean < 0.03
    assert agreement([text], with_logprobs(text, hit)).mean > 0.2


def test_other_best_tokens_are_counted() -> None:
    text = long_text(positions=100)
    best = tuple(token + 1 if place < 25 else token for place, token in enumerate(text.best))
    assert agreement([text], [replace(text, best=best)]).same_best == 0.75


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ([], [], "no position"),
        ([long_text()], [], "different texts"),
        ([long_text()], [replace(long_text(), name="other")], "different texts"),
        (
            [long_text()],
            [replace(long_text(), tokens=(0, *long_text().tokens[1:]))],
            "different tok",
        ),
        (
            [long_text()],
            [replace(long_text(), logprobs=long_text().logprobs[:-1])],
            "599 positions",
        ),
        ([long_text()], [replace(long_text(), best=long_text().best[:-1])], "599 most probable"),
        ([long_text()], [replace(long_text(), tops=long_text().tops[:-1])], "599 lists"),
        ([replace(long_text(), logprobs=(), best=(), tops=())],) * 2 + ("0 positions",),
        ([Scored("one", (7,), (), ())], [Scored("one", (7,), (), ())], "no position"),
        ([Scored("none", (), (), ())], [Scored("none", (), (), ())], "no position"),
    ],
)
def test_what_cannot_be_compared_is_no_agreement(
    left: list[Scored], right: list[Scored], told: str
) -> None:
    with pytest.raises(ObservationError, match=told):
        agreement(left, right)
    with pytest.raises(ObservationError):
        agreement(right, left)


def said(tokens: tuple[int, ...], gaps: tuple[float, ...]) -> Greedy:
    return Greedy("p", (0, 1), tokens, (-0.5,) * len(tokens), gaps)


TEXT = said((11, 12, 13, 14), (1.0, 0.5, 2.0, 3.0))


def test_the_first_split_counts_with_the_smaller_gap() -> None:
    """What follows a split is another text, and is not compared."""
    other = said((11, 12, 23, 24), (1.0, 0.5, 0.25, 9.0))
    (split,) = first_splits([TEXT], [other])
    assert (split.prompt, split.position, split.left, split.right) == ("p", 2, 13, 23)
    assert split.gap == 0.25
    assert first_splits([other], [TEXT])[0].gap == 0.25
    assert first_splits([TEXT], [TEXT]) == []


@given(st.lists(st.integers(1, 3), min_size=1, max_size=20), st.data())
def test_a_split_is_found_wherever_it_is(tokens: list[int], data: st.DataObject) -> None:
    gaps = tuple(data.draw(st.floats(0, 9)) for _ in tokens)
    place = data.draw(st.integers(0, len(tokens) - 1))
    changed = [*tokens[:place], 9, *tokens[place + 1 :]]
    (split,) = first_splits([said(tuple(tokens), gaps)], [said(tuple(changed), gaps)])
    assert (split.position, split.gap) == (place, gaps[place])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([], []),
        ([TEXT], []),
        ([TEXT], [replace(TEXT, name="q")]),
        ([TEXT], [replace(TEXT, tokens=TEXT.tokens[:3])]),
        ([TEXT], [replace(TEXT, gaps=TEXT.gaps[:3])]),
        ([replace(TEXT, tokens=(), gaps=())], [replace(TEXT, tokens=(), gaps=())]),
        ([TEXT], [said((21, 12, 13, 14), (math.nan, 0.5, 2.0, 3.0))]),
        ([TEXT], [said((21, 12, 13, 14), (math.inf, 0.5, 2.0, 3.0))]),
    ],
)
def test_continuations_that_cannot_be_compared_are_no_agreement(
    left: list[Greedy], right: list[Greedy]
) -> None:
    with pytest.raises(ObservationError):
        first_splits(left, right)
    with pytest.raises(ObservationError):
        first_splits(right, left)


@given(scorings())
def test_an_account_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, scored: list[Scored]
) -> None:
    path = tmp_path_factory.mktemp("account") / "account.json"
    account = Account(scored, [TEXT])
    account.write(path)
    assert Account.read(path) == account
    assert list(path.parent.iterdir()) == [path]


def test_a_position_can_be_left_out() -> None:
    text = long_text()
    values = [v - 9 * (at >= 300) for at, v in enumerate(text.logprobs)]
    found = agreement([text], with_logprobs(text, values), lambda _, place: place <= 300)
    assert (found.positions, found.worst) == (300, 0)


def test_divergence_drops_nothing() -> None:
    """What one side alone lists is part of the rest, so mass that moves there is seen."""
    left = {1: math.log(0.6), 2: math.log(0.3)}
    assert divergence(left, left) == 0
    assert divergence(left, {1: math.log(0.3), 2: math.log(0.6)}) > 0.2
    assert divergence(left, {1: math.log(0.6), 3: math.log(0.3)}) == 0, "a lower bound"
    assert divergence(left, {1: math.log(0.2), 3: math.log(0.3)}) > 0.3
    assert divergence(left, {4: -0.1}) == math.inf, "nothing in common"
    assert divergence({1: 0.0}, {1: -1e-9}) == pytest.approx(0, abs=1e-6)


@given(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=8),
    st.lists(st.floats(0.01, 1), min_size=8, max_size=8),
)
def test_divergence_is_never_negative(one: list[float], two: list[float]) -> None:
    left = {n: math.log(v / (sum(one) * 1.1)) for n, v in enumerate(one)}
    right = {n: math.log(v / (sum(two) * 1.1)) for n, v in enumerate(two)}
    assert divergence(left, right) >= 0
