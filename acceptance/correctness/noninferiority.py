"""Is B no worse than A: a one-sided bound of the mean difference, resampled by text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RESAMPLES = 4000
SEED = 20250120
CONFIDENCE = 0.95


def upper_bound(
    by_text: Mapping[str, float], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> float:
    """Upper end of the one-sided interval of the mean over texts, by a paired bootstrap: texts are
    drawn, since positions of one text are not independent. Infinite when a value is no number.
    """
    import numpy as np  # takes a moment to import, and collecting needs none of it

    values = np.array(list(by_text.values()), dtype=float)
    if not len(values) or not np.isfinite(values).all():
        return float("inf")
    draws = np.random.default_rng(SEED).integers(0, len(values), (resamples, len(values)))
    return float(np.quantile(values[draws].mean(axis=1), confidence))
