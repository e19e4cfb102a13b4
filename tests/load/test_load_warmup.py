"""When warming up ends."""

from __future__ import annotations

import pytest

from acceptance.load.warmup import WarmRule, is_steady


@pytest.mark.parametrize(
    ("waves", "steady"),
    [
        ((), False),
        ((1.0,), False),
        ((9.0, 1.0), False),  # the first wave compiled
        ((9.0, 1.0, 1.1), True),
        ((1.0, 1.19), True),
        ((1.0, 1.25), False),
        ((1.0, 0.81), True),
        ((1.0, 0.75), False),
    ],
)
def test_steady_is_a_change_of_less_than_a_fifth(waves: tuple[float, ...], steady: bool):
    assert is_steady(waves, WarmRule()) is steady


def test_the_least_number_of_waves_is_kept():
    assert not is_steady((1.0, 1.0), WarmRule(least=3))
    assert is_steady((1.0, 1.0, 1.0), WarmRule(least=3))
