"""The catalogue but for what needs real vLLM or a clock, scored: every entry detected as it must
be, no false alarm.

The whole of it is `./accept defects`; with what a clock decides on, `./accept defects --quick`.
"""

from __future__ import annotations

import pytest
from defects_campaign import Campaign
from defects_catalogue import World, catalogue
from defects_scoring import Score, Scored

QUICK = [defect for defect in catalogue().values() if defect.quick and not defect.timed]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    """Of one campaign for all of these tests."""
    campaign = Campaign(tmp_path_factory.mktemp("defects"))
    campaign.run(QUICK)
    return campaign.scores


@pytest.mark.parametrize("name", [defect.id for defect in QUICK if not defect.missed])
def test_detected(scores: dict[str, Score], name: str) -> None:
    if name not in scores:
        assert catalogue()[name].world is World.GPU
        pytest.skip("no C compiler for a stand-in of the driver's library")
    found = scores[name]
    # In time or not is for a quiet machine to say.
    late = found.scored is Scored.OTHERWISE and found.seconds > _within(name)
    assert found.scored is Scored.DETECTED or late, found


def test_no_healthy_twin_falls_short(scores: dict[str, Score]) -> None:
    twins = {name: found for name, found in scores.items() if name.startswith("healthy.")}
    assert len(twins) >= 2
    assert {found.scored for found in twins.values()} == {Scored.HEALTHY}, twins


def _within(name: str) -> float:
    expected = catalogue()[name].expect
    assert expected is not None
    return expected.within
