"""The comparers, with faults planted in one of two equal accounts."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.correctness.account import Account
from acceptance.correctness.compare import agreement, first_splits
from acceptance.correctness.scoring import Greedy, Scored
from acceptance.errors import ObservationError

LOGPROBS = st.floats(-20, 0, allow_nan=False)


@st.composite
def scorings(draw: st.DrawFn) -> list[Scored]:
    """One to three texts of two to thirty tokens."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        positions = draw(st.integers(1, 29))
        tokens = draw(st.lists(st.integers(0, 511), min_size=positions + 1, max_size=positions + 1))
        made.append(
            Scored(
                f"text{number}",
                tuple(tokens),
                tuple(draw(st.lists(LOGPROBS, min_size=positions, max_size=positions))),
                tuple(draw(st.lists(st.integers(0, 511), min_size=positions, max_size=positions))),
            )
        )
    return made


def long_text(seed: int = 1, positions: int = 600) -> Scored:
    draw = random.Random(seed)
    return Scored(
        "long",
        tuple(draw.randrange(512) for _ in range(positions + 1)),
        tuple(-draw.expovariate(0.5) for _ in range(positions)),
        tuple(draw.randrange(512) for _ in range(positions)),
    )


def with_logprobs(scored: Scored, values: list[float]) -> list[Scored]:
    return [replace(scored, logprobs=tuple(values))]


@given(scorings())
def test_equal_accounts_agree(scored: list[Scored]) -> None:
    found = agreement(scored, list(reversed(scored)))
    assert found.positions == sum(len(one.logprobs) for one in scored)
    assert (found.mean, found.median, found.p90, found.worst) == (0, 0, 0, 0)
    assert found.same_best == 1


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
    assert replace(one, worst_at="") == replace(other, worst_at="")


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
        ([replace(long_text(), logprobs=(), best=())] * 1,) * 2 + ("0 positions",),
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


TEXT = Greedy("p", ("a", "b", "c", "d"), (1.0, 0.5, 2.0, 3.0))


def test_the_first_split_counts_with_the_smaller_gap() -> None:
    """What follows a split is another text, and is not compared."""
    other = Greedy("p", ("a", "b", "x", "y"), (1.0, 0.5, 0.25, 9.0))
    (split,) = first_splits([TEXT], [other])
    assert (split.prompt, split.position, split.left, split.right) == ("p", 2, "c", "x")
    assert split.gap == 0.25
    assert first_splits([other], [TEXT])[0].gap == 0.25
    assert first_splits([TEXT], [TEXT]) == []


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), st.data())
def test_a_split_is_found_wherever_it_is(tokens: list[str], data: st.DataObject) -> None:
    gaps = tuple(data.draw(st.floats(0, 9)) for _ in tokens)
    place = data.draw(st.integers(0, len(tokens) - 1))
    changed = [*tokens[:place], "z", *tokens[place + 1 :]]
    (split,) = first_splits([Greedy("p", tuple(tokens), gaps)], [Greedy("p", tuple(changed), gaps)])
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
        ([TEXT], [Greedy("p", ("x", "b", "c", "d"), (math.nan, 0.5, 2.0, 3.0))]),
        ([TEXT], [Greedy("p", ("x", "b", "c", "d"), (math.inf, 0.5, 2.0, 3.0))]),
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
