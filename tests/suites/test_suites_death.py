"""A killed engine: one whose death is told, and those whose is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from proofs import broken, healthy

import suites.resilience.test_sudden_death as sudden
from acceptance.conformance.death import Death
from acceptance.judging.judgement import Outcome
from fixtures.judging import OptionalSkip

if TYPE_CHECKING:
    from suites_world import World


def check(
    world: World, monkeypatch: pytest.MonkeyPatch, death: Death, tier: str = "full"
) -> list[float]:
    ends: list[float] = []
    started = world.server(custody=SimpleNamespace(end=ends.append))
    monkeypatch.setattr(sudden, "start_server", lambda *_, suffix: started)
    monkeypatch.setattr(sudden, "kill_engine", lambda _: death)
    config: Any = SimpleNamespace(option=SimpleNamespace(tier=tier))
    sudden.test_killed_engine_is_told(
        world.server(), world.deployment, world.run, world.judge, config
    )
    return ends


@healthy(sudden.test_killed_engine_is_told)
def test_told_and_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = check(world, monkeypatch, Death(503, 0.4, 1, ()))
    assert world.outcomes == {"killed_engine": Outcome.PASS}
    assert ends == [world.deployment.budgets.stop], "whatever happens, it is ended"


@broken(sudden.test_killed_engine_is_told)
@pytest.mark.parametrize(
    ("death", "told"),
    [
        (Death(200, None, 1, ()), "/health still answers 200"),
        (Death(503, 0.4, None, ()), "the API server lives on"),
        (Death(0, 0.4, 0, ()), "the API server ends with exit code 0, as if all were well"),
        (Death(0, 0.4, 1, (4711,)), "process 4711 stays behind"),
    ],
)
def test_shown(world: World, monkeypatch: pytest.MonkeyPatch, death: Death, told: str) -> None:
    check(world, monkeypatch, death)
    assert world.outcomes == {"killed_engine": Outcome.UNGATED}
    assert world.judged["killed_engine"].measurement.value == told


def test_only_where_a_start_of_its_own_was_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionalSkip, match="--tier full"):
        check(world, monkeypatch, Death(503, 0.4, 1, ()), tier="gate")
