"""How far a healthy value may lie from a known one, from few repetitions and public experience.

A handful of runs tells little of its own spread: five that happen to agree would give a tolerance
that the sixth breaks. So the measured variance is pooled with the public one of the metric, which
counts as PRIOR degrees of freedom, and Student's distribution pays for what is still not known.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.judging.metrics import Metric

PRIOR = 4  # degrees of freedom: as five runs
RISK = 0.001  # that a healthy value lies outside, both sides together


def center(values: Sequence[float]) -> float:
    """The median: one bad run of five does not move it. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    return statistics.median(values)


def variation(values: Sequence[float]) -> float | None:
    """Standard deviation as a share of the mean's size; None for fewer than two values, and for
    a mean of 0."""
    mean = statistics.fmean(values) if values else 0.0
    if len(values) < 2 or mean == 0:
        return None
    return statistics.stdev(values) / abs(mean)


def pooled(metric: Metric, *groups: Sequence[float]) -> tuple[float, int]:
    """Coefficient of variation over the public prior and all groups, and its degrees of freedom."""
    weight, squares = PRIOR, PRIOR * metric.cv**2
    for values in groups:
        measured = variation(values)
        if measured is not None:
            weight += len(values) - 1
            squares += (len(values) - 1) * measured**2
    return math.sqrt(squares / weight), weight


def tolerance(metric: Metric, values: Sequence[float], *, others: Sequence[float] = ()) -> float:
    """Share by which one new value, or the center of `others`, may lie off the center of `values`:
    what the spread asks, and never less than the metric's own tolerance."""
    from scipy.special import stdtrit  # takes a moment to import, and collecting needs none of it

    spread, weight = pooled(metric, values, others)
    of_centers = spread * math.sqrt(1 / max(len(values), 1) + 1 / max(len(others), 1))
    return max(metric.tolerance, float(stdtrit(weight, 1 - RISK / 2)) * of_centers)
