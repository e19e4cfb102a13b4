"""A fixed part of the catalogue, scored: every entry detected as it must be, no false alarm.

The whole of it is `./accept defects`; what needs no real vLLM, `./accept defects --quick`.
"""

from __future__ import annotations

import pytest
from defects_campaign import Campaign
from defects_catalogue import World, catalogue
from defects_scoring import Score, Scored

SAMPLE = [defect for defect in catalogue().values() if defect.sampled]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    """Of one campaign for all of these tests."""
    campaign = Campaign(tmp_path_factory.mktemp("defects"))
    campaign.run(SAMPLE)
    return campaign.scores


def test_the_sample_is_quick_and_of_every_world_that_is() -> None:
    """Measured cells take vLLM's client and a quiet machine, and are left to the whole."""
    assert {defect.world for defect in SAMPLE} == {World.PROXY, World.SIMULATED, World.GPU}
    assert all(defect.quick and not defect.missed for defect in SAMPLE)
    assert {defect.row for defect in SAMPLE} >= {"memory", "start", "output", "crash", "interface"}


@pytest.mark.parametrize("name", [defect.id for defect in SAMPLE])
def test_detected(scores: dict[str, Score], name: str) -> None:
    if name not in scores:
        pytest.skip("no C compiler for a stand-in of the driver's library")
    found = scores[name]
    # In time or not is for a quiet machine to say: the whole, not the sample.
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
