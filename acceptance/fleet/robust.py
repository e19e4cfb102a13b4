"""One host against its peers, by numbers that a few sick peers do not move.

The center is the median of the others, the spread their median absolute deviation (MAD), scaled to
a standard deviation and never taken to be less than a known one: the modified z-score, with the
host itself left out. As long as fewer than half of the peers are sick, neither is carried away.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.judging.spread import PRIOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TO_SIGMA = 1.4826  # of a normal distribution, 1 / its upper quartile
EFFICIENCY = 0.3675  # of the MAD, against the standard deviation of as many normal values
MEDIAN_VARIANCE = math.pi / 2  # of a median, against that of a mean of as many normal values


@dataclass(frozen=True)
class Peers:
    """center: their median. spread: standard deviation, in the values' unit, of one value against
    that center. freedom: degrees, for how little is known of the spread."""

    center: float
    spread: float
    freedom: float

    def score(self, value: float) -> float:
        """The modified z-score."""
        return (value - self.center) / self.spread


class _Sorted:
    """Numbers in order, to be asked for the median without one of them."""

    def __init__(self, values: Iterable[float]) -> None:
        self._order = sorted(values)

    def median_without(self, value: float) -> float:
        """The same as statistics.median of all but one that equals `value`, of at least two."""
        left = bisect_left(self._order, value)
        middle, odd = divmod(len(self._order) - 1, 2)
        upper = self._order[middle + (middle >= left)]
        if odd:
            return upper
        return (self._order[middle - 1 + (middle - 1 >= left)] + upper) / 2


def peers_of(values: Sequence[float], floor: float, *, share: bool) -> list[Peers | None]:
    """For each of the values, the others. floor: least spread, as a share of the center where
    `share`. None where there is no other, or the center is 0 and shares of it mean nothing.

    The known spread counts as much as elsewhere (PRIOR degrees of freedom), and the MAD as many
    values as a standard deviation that is as sharp.

    Without one of them the values have one of at most three medians, so a few sorted lists do for
    all hosts.
    """
    others = len(values) - 1
    if others < 1:
        return [None for _ in values]
    order = _Sorted(values)
    around: dict[float, _Sorted] = {}  # by center, how far all values lie from it
    found: list[Peers | None] = []
    for value in values:
        center = order.median_without(value)
        if share and center == 0:
            found.append(None)
            continue
        if center not in around:
            around[center] = _Sorted(abs(one - center) for one in values)
        measured = TO_SIGMA * around[center].median_without(abs(value - center))
        sigma = max(measured, floor * (abs(center) if share else 1.0))
        found.append(
            Peers(
                center=center,
                spread=sigma * math.sqrt(1 + MEDIAN_VARIANCE / others),
                freedom=PRIOR + EFFICIENCY * others,
            )
        )
    return found


def chance(score: float, freedom: float, questions: int) -> float:
    """That any of so many healthy values lies as far off as this one, on either side.

    Bonferroni's bound, over Student's distribution. It holds however much the questions hang
    together, as metrics of one cell and cells of one host do, and it bounds the chance that any
    healthy host is named. Control of the share of false finds (Benjamini-Hochberg) would not: one
    sick host, found in a hundred cells, would let through a few healthy ones beside it.
    """
    from scipy.special import stdtr  # scipy.stats.t, which takes far longer to import

    return min(1.0, 2.0 * float(stdtr(freedom, -abs(score))) * questions)
