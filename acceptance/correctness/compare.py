"""Comparing two accounts of the same tokens. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from acceptance.correctness.scoring import Greedy, Scored

LEAST_REST = 1e-6  # probability that a rest bucket has at least; rounding can make it negative


@dataclass(frozen=True)
class Agreement:
    """How far two scorings of the same texts lie apart, over all positions.

    mean, median, p90, p999, worst: of |difference of log-probability|, nats. kl: mean divergence of
    right from left, nats, over the tokens that both list, all others one bucket. same_best: share
    of positions where both have the same most probable token. worst_at: text and position.
    dnll: by text, how much less probable right finds it than left, nats a token.
    """

    positions: int
    mean: float
    median: float
    p90: float
    p999: float
    worst: float
    kl: float
    same_best: float
    worst_at: str
    dnll: dict[str, float] = field(repr=False)

    @property
    def evidence(self) -> dict[str, object]:
        """Everything but the texts one by one."""
        told = {k: v for k, v in vars(self).items() if k != "dnll"}
        return {**told, "texts": len(self.dnll), "dnll": statistics.fmean(self.dnll.values())}


@dataclass(frozen=True)
class Split:
    """The first token where two greedy continuations differ. gap: the smaller of both sides'
    gaps between the two best tokens there, nats: how sure the surer doubter was."""

    prompt: str
    position: int
    left: int
    right: int
    gap: float


@dataclass(frozen=True)
class _Place:
    text: str
    position: int
    apart: float
    same: bool
    kl: float
    dnll: float


def agreement(
    left: Sequence[Scored],
    right: Sequence[Scored],
    where: Callable[[Scored, int], bool] = lambda *_: True,
) -> Agreement:
    """Compares position by position. where: which positions (text, index of the token) count.

    Raises ObservationError when the two are not about the same tokens, about none, or when a
    position of either lacks its value.
    """
    places = list(_places(left, right, where))
    if not places:
        raise ObservationError("no position was compared")
    values = sorted(place.apart for place in places)
    worst = max(places, key=lambda place: place.apart)
    by_text: dict[str, list[float]] = {}
    for place in places:
        by_text.setdefault(place.text, []).append(place.dnll)

    def quantile(share: float) -> float:
        return values[math.ceil(share * len(values)) - 1]

    return Agreement(
        positions=len(values),
        mean=statistics.fmean(values),
        median=statistics.median(values),
        p90=quantile(0.9),
        p999=quantile(0.999),
        worst=worst.apart,
        kl=statistics.fmean(place.kl for place in places),
        same_best=sum(place.same for place in places) / len(places),
        worst_at=f"{worst.text}[{worst.position}]",
        dnll={name: statistics.fmean(found) for name, found in by_text.items()},
    )


def _places(
    left: Sequence[Scored], right: Sequence[Scored], where: Callable[[Scored, int], bool]
) -> Iterator[_Place]:
    other = {scored.name: scored for scored in right}
    if set(other) != {scored.name for scored in left}:
        raise ObservationError("the two scorings are of different texts")
    for scored in (*left, *right):
        counts = {len(scored.logprobs), len(scored.best), len(scored.tops)}
        if counts != {max(0, len(scored.tokens) - 1)}:
            raise ObservationError(
                f"text {scored.name} of {len(scored.tokens)} tokens was scored at "
                f"{len(scored.logprobs)} positions, with {len(scored.best)} most probable tokens "
                f"and {len(scored.tops)} lists of alternatives"
            )
    for mine in left:
        theirs = other[mine.name]
        if mine.tokens != theirs.tokens:
            raise ObservationError(f"text {mine.name} was scored with different tokens")
        for index, (a, b) in enumerate(zip(mine.logprobs, theirs.logprobs, strict=True)):
            if not where(mine, index + 1):
                continue
            # NaN compares false with everything: it must not slip below a ceiling.
            known = math.isfinite(a) and math.isfinite(b)
            yield _Place(
                mine.name,
                index + 1,
                abs(a - b) if known else math.inf,
                mine.best[index] == theirs.best[index],
                divergence(mine.tops[index], theirs.tops[index]) if known else math.inf,
                a - b if known else math.inf,
            )


def divergence(left: dict[int, float], right: dict[int, float]) -> float:
    """KL divergence of right from left, nats, over the tokens that both list; what only one lists
    is part of a rest bucket, so that nothing is dropped. A lower bound of the whole vocabulary's.
    """
    both = left.keys() & right.keys()
    if not both:
        return math.inf
    found = sum(math.exp(left[t]) * (left[t] - right[t]) for t in both)
    mine = max(LEAST_REST, 1 - sum(math.exp(left[t]) for t in both))
    theirs = max(LEAST_REST, 1 - sum(math.exp(right[t]) for t in both))
    return max(0.0, found + mine * math.log(mine / theirs))


def first_splits(left: Sequence[Greedy], right: Sequence[Greedy]) -> list[Split]:
    """Where each pair of continuations first differs; prompts that agree throughout give none.

    Raises ObservationError when the prompts or lengths differ, or there are none, or a gap is no
    number.
    """
    other = {one.name: one for one in right}
    if not left or set(other) != {one.name for one in left}:
        raise ObservationError("the two sets of continuations are of different prompts")
    splits = []
    for mine in left:
        theirs = other[mine.name]
        lengths = {len(o) for o in (mine.tokens, theirs.tokens, mine.gaps, theirs.gaps)}
        if len(lengths) != 1 or lengths == {0}:
            raise ObservationError(f"prompt {mine.name} was continued by different lengths")
        for place, (a, b) in enumerate(zip(mine.tokens, theirs.tokens, strict=True)):
            if a != b:
                gap = min(mine.gaps[place], theirs.gaps[place])
                if not (math.isfinite(mine.gaps[place]) and math.isfinite(theirs.gaps[place])):
                    raise ObservationError(f"prompt {mine.name}[{place}]: a gap is no number")
                splits.append(Split(mine.name, place, a, b, gap))
                break
    return splits
