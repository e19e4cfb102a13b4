"""Judging a share of right answers: is it shown to be good enough, shown not to be, or neither.

The bar lies `margin` below the reference. PASS rejects "at or below the bar" and FAIL rejects "at
or above the bar", each by an exact one-sided binomial test at alpha. So a healthy server fails with
a probability of at most alpha even at the bar, and one below it passes with at most alpha; what n
cannot tell apart is inconclusive, which is no pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

ALPHA = 0.05


class Finding(StrEnum):
    """What the answers show."""

    GOOD = "good"
    BAD = "bad"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Gate:
    """Fixed before the run. n: questions. pass_at: right answers that are enough; fail_at: that are
    too few. power: probability that a server as good as the reference passes."""

    n: int
    reference: float
    margin: float
    alpha: float
    pass_at: int
    fail_at: int
    power: float

    @property
    def bar(self) -> float:
        return self.reference - self.margin

    def finding(self, right: int) -> Finding:
        """What so many right answers show. Raises ValueError for an impossible count."""
        if not 0 <= right <= self.n:
            raise ValueError(f"{right} right answers of {self.n}")
        if right >= self.pass_at:
            return Finding.GOOD
        return Finding.BAD if right <= self.fail_at else Finding.INCONCLUSIVE

    @property
    def told(self) -> str:
        """In one line, for the record."""
        return (
            f"reference {self.reference:.2%} less {self.margin:.1%}, n {self.n}, alpha "
            f"{self.alpha:g}: passes from {self.pass_at} right, fails up to {self.fail_at}, power "
            f"{self.power:.0%} at the reference"
        )


def gate(n: int, reference: float, margin: float, alpha: float = ALPHA) -> Gate:
    """The gate of n questions. pass_at is n + 1 where n is too small ever to pass. Raises
    ValueError for shares that are none."""
    bar = reference - margin
    if n < 1 or not 0 < bar < reference <= 1:
        raise ValueError(f"no gate of {n} questions at {reference} less {margin}")
    from scipy import stats  # takes a second to import, and collecting needs none of it

    at_bar = stats.binom(n, bar)
    pass_at = int(at_bar.isf(alpha)) + 1  # P(X >= pass_at) = sf(pass_at - 1) <= alpha
    fail_at = int(at_bar.ppf(alpha)) - 1
    while at_bar.cdf(fail_at + 1) <= alpha:
        fail_at += 1
    power = float(stats.binom(n, reference).sf(pass_at - 1)) if pass_at <= n else 0.0
    return Gate(n, reference, margin, alpha, pass_at, fail_at, power)


@dataclass(frozen=True)
class Paired:
    """The same questions, answered twice. only_before, only_after: right in one alone. mcnemar:
    exact one-sided p that after is no worse; lower, upper: one-sided bounds of after - before, each
    at alpha, as shares."""

    n: int
    only_before: int
    only_after: int
    mcnemar: float
    lower: float
    upper: float

    @property
    def difference(self) -> float:
        return (self.only_after - self.only_before) / self.n

    def finding(self, margin: float, alpha: float = ALPHA) -> Finding:
        """Good: worse by less than margin. Bad: worse, by McNemar's test, and not shown to be
        within margin."""
        if self.lower > -margin:
            return Finding.GOOD
        return Finding.BAD if self.mcnemar < alpha else Finding.INCONCLUSIVE


def paired(before: dict[str, bool], after: dict[str, bool], alpha: float = ALPHA) -> Paired:
    """Compares right answers by question. Raises ValueError when the questions differ, or there are
    none."""
    if not before or before.keys() != after.keys():
        raise ValueError("the two are not of the same questions")
    from scipy import stats

    n = len(before)
    lost = sum(right and not after[q] for q, right in before.items())
    won = sum(after[q] and not right for q, right in before.items())
    told = stats.binom(lost + won, 0.5).cdf(won) if lost + won else 1.0
    # Wald's interval with half an answer added to each cell (Agresti and Min 2005), since with few
    # discordant answers the plain one is far too narrow.
    size, b, c = n + 2, lost + 0.5, won + 0.5
    middle = (c - b) / size
    half = float(stats.norm.isf(alpha)) * math.sqrt((b + c) / size - middle**2) / math.sqrt(size)
    return Paired(n, lost, won, float(told), middle - half, middle + half)
