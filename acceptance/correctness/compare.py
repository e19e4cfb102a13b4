"""Comparing two accounts of the same tokens. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.correctness.scoring import Greedy, Scored


@dataclass(frozen=True)
class Agreement:
    """How far two scorings of the same texts lie apart, over all positions.

    mean, median, p90, worst: of |difference of log-probability|, nats. same_best: share of
    positions where both have the same most probable token. worst_at: text and position.
    """

    positions: int
    mean: float
    median: float
    p90: float
    worst: float
    same_best: float
    worst_at: str


@dataclass(frozen=True)
class Split:
    """The first token where two greedy continuations differ. gap: the smaller of both sides'
    gaps between the two best tokens there, nats: how sure the surer doubter was."""

    prompt: str
    position: int
    left: str
    right: str
    gap: float


def agreement(left: Sequence[Scored], right: Sequence[Scored]) -> Agreement:
    """Raises ObservationError when the two are not about the same tokens, about none, or when a
    position of either lacks its value."""
    other = {scored.name: scored for scored in right}
    if set(other) != {scored.name for scored in left}:
        raise ObservationError("the two scorings are of different texts")
    for scored in (*left, *right):
        counts = {len(scored.logprobs), len(scored.best)}
        if counts != {max(0, len(scored.tokens) - 1)}:
            raise ObservationError(
                f"text {scored.name} of {len(scored.tokens)} tokens was scored at "
                f"{len(scored.logprobs)} positions, with {len(scored.best)} most probable tokens"
            )
    differences: list[tuple[float, str]] = []
    same = 0
    for mine in left:
        theirs = other[mine.name]
        if mine.tokens != theirs.tokens:
            raise ObservationError(f"text {mine.name} was scored with different tokens")
        for place, (a, b) in enumerate(zip(mine.logprobs, theirs.logprobs, strict=True), start=1):
            apart = abs(a - b)
            # NaN compares false with everything: it must not slip below a ceiling.
            apart = apart if math.isfinite(apart) else math.inf
            differences.append((apart, f"{mine.name}[{place}]"))
        same += sum(a == b for a, b in zip(mine.best, theirs.best, strict=True))
    if not differences:
        raise ObservationError("no position was compared")
    values = sorted(apart for apart, _ in differences)
    worst, where = max(differences)
    return Agreement(
        positions=len(values),
        mean=statistics.fmean(values),
        median=statistics.median(values),
        p90=values[math.ceil(0.9 * len(values)) - 1],
        worst=worst,
        same_best=same / len(values),
        worst_at=where,
    )


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
