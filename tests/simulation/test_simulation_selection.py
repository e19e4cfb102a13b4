"""A simulated deployment is judged only where somebody asked for it by name or lane."""

from __future__ import annotations

import pytest
from simulation_world import simulated

from acceptance.deployments.load import load_deployments
from acceptance.deployments.possible import why_impossible
from acceptance.deployments.schema import Deployment, Lane, Profile
from acceptance.load.workloads import Tier, cells
from acceptance.simulation.command import simulated_command, simulated_vllm
from acceptance.simulation.flags import parse
from fixtures.selection import may_go_unnamed

MATRIX = [d for d in load_deployments().values() if d.lane is Lane.SIMULATED]


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("", False),
        ("fp8", False),
        ("not full", False),
        ("simulated", True),
        ("simulated and fp8", True),
        ("full or simulated", True),
        ("not simulated", False),
    ],
)
def test_only_when_asked(expression: str, chosen: bool) -> None:
    assert may_go_unnamed(expression, simulated()) is chosen
    assert may_go_unnamed(expression, load_deployments()["rehearsal-tp-ep"])


def test_the_matrix_is_that_of_the_recipes_four_deployments() -> None:
    assert {d.name.removeprefix("simulated-") for d in MATRIX} == {
        *("fp8-8xh200-tp-ep", "fp8-8xh200-dp-ep", "fp4-4xb200-tp-ep", "fp4-4xb200-dp-ep"),
    }
    assert sum(len(cells(deployment, Tier.FULL)) for deployment in MATRIX) == 84


@pytest.mark.parametrize("one", MATRIX, ids=lambda d: d.name)
def test_each_imitates_its_original_and_takes_no_gpu(one: Deployment) -> None:
    original = load_deployments()[one.name.removeprefix("simulated-")]
    for name in ("model", "precision", "gpus", "layout"):
        assert getattr(one, name) == getattr(original, name)
    for name in ("max_num_batched_tokens", "moe_backend"):
        assert getattr(one.options, name) == getattr(original.options, name)
    assert (one.gpus_here, original.gpus_here) == (0, original.gpus.count)
    assert one.scale.time >= 1
    assert why_impossible(one, simulated_vllm().version) == []


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("one", MATRIX, ids=lambda d: d.name)
def test_the_command_is_understood(one: Deployment, profile: Profile) -> None:
    command = simulated_command(one, profile, port=8000)
    argv = command.run_by(simulated_vllm().argv)
    assert argv[1:4] == ("-m", "acceptance.simulation", "serve")
    settings = parse(argv[4:])
    assert settings.layout == one.layout.fingerprint
    assert (settings.served, settings.port) == (one.model, 8000)
    assert settings.prefix_caching is (profile is Profile.SERVING)
    assert settings.machine.gpu == one.gpus.kind
    assert "python -m acceptance.simulation serve" in command.shell()
    assert "vllm serve" not in command.shell()
