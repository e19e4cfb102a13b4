"""One host against its peers, by numbers that a few sick peers do not move.

The center is the median of the others, the spread their median absolute deviation (MAD), scaled to
a standard deviation and never taken to be less than a known one: the modified z-score, with the
host itself left out. As long as fewer than half of the peers are sick, neither is carried away.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.judging.spread import PRIOR

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def peers_of(values: Sequence[float], place: int, floor: float, *, share: bool) -> Peers | None:
    """The others of values[place]. floor: least spread, as a share of the center where `share`.
    None where there is no other, or the center is 0 and shares of it mean nothing.

    The known spread counts as much as elsewhere (PRIOR degrees of freedom), and the MAD as many
    values as a standard deviation that is as sharp.
    """
    others = [*values[:place], *values[place + 1 :]]
    if not others:
        return None
    center = statistics.median(others)
    if share and center == 0:
        return None
    measured = TO_SIGMA * statistics.median(abs(value - center) for value in others)
    sigma = max(measured, floor * (abs(center) if share else 1.0))
    return Peers(
        center=center,
        spread=sigma * math.sqrt(1 + MEDIAN_VARIANCE / len(others)),
        freedom=PRIOR + EFFICIENCY * len(others),
    )


def chance(score: float, freedom: float, questions: int) -> float:
    """That any of so many healthy values lies as far off as this one, on either side.

    Bonferroni's bound, over Student's distribution. It holds however much the questions hang
    together, as metrics of one cell and cells of one host do, and it bounds the chance that any
    healthy host is named. Control of the share of false finds (Benjamini-Hochberg) would not: one
    sick host, found in a hundred cells, would let through a few healthy ones beside it.
    """
    from scipy.special import stdtr  # scipy.stats.t, which takes far longer to import

    return min(1.0, 2.0 * float(stdtr(freedom, -abs(score))) * questions)
