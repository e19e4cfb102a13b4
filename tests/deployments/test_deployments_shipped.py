"""The shipped deployments are the recipe's, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from acceptance.deployments.command import render
from acceptance.deployments.load import SHIPPED, load_deployments
from acceptance.deployments.possible import why_impossible
from acceptance.deployments.schema import Lane, Profile

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = [Version(f"0.{minor}.0") for minor in range(12, 34)]

R1, R1_FP4 = "deepseek-ai/DeepSeek-R1-0528", "nvidia/DeepSeek-R1-FP4"
V3, V3_FP4 = "deepseek-ai/DeepSeek-V3", "nvidia/DeepSeek-V3-FP4"
EP = "--enable-expert-parallel"

RECIPE = {
    "fp8-8xh200-tp-ep": f"vllm serve {R1} --trust-remote-code --tensor-parallel-size 8 {EP}",
    "fp8-8xh200-dp-ep": f"vllm serve {R1} --trust-remote-code --data-parallel-size 8 {EP}",
    "fp4-4xb200-tp-ep": "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve nvidia/DeepSeek-R1-FP4 "
    "--trust-remote-code --tensor-parallel-size 4 --enable-expert-parallel",
    "fp4-4xb200-dp-ep": "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve nvidia/DeepSeek-R1-FP4 "
    "--trust-remote-code --data-parallel-size 4 --enable-expert-parallel",
    "fp4-8xb200-tp-ep": f"vllm serve {R1_FP4} --trust-remote-code --tensor-parallel-size 8 {EP}",
    "fp4-8xb200-dp-ep": f"vllm serve {R1_FP4} --trust-remote-code --data-parallel-size 8 {EP}",
    "fp8-8xb200-tp-ep": f"vllm serve {R1} --trust-remote-code --tensor-parallel-size 8 {EP}",
    "fp8-8xb200-dp-ep": f"vllm serve {R1} --trust-remote-code --data-parallel-size 8 {EP}",
    "v3-fp8-8xh200-tp-ep": f"vllm serve {V3} --trust-remote-code --tensor-parallel-size 8 {EP}",
    "v3-fp8-8xh200-dp-ep": f"vllm serve {V3} --trust-remote-code --data-parallel-size 8 {EP}",
    "v3-fp4-4xb200-tp-ep": f"CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve {V3_FP4} "
    f"--trust-remote-code --tensor-parallel-size 4 {EP}",
    "v3-fp4-4xb200-dp-ep": f"CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve {V3_FP4} "
    f"--trust-remote-code --data-parallel-size 4 {EP}",
    "rehearsal-tp-ep": "vllm serve generated/deepseek-v3-tiny --trust-remote-code "
    f"--tensor-parallel-size 2 {EP}",
    "rehearsal-dp-ep": "vllm serve generated/deepseek-v3-tiny --trust-remote-code "
    f"--data-parallel-size 2 {EP}",
}
DEPLOYMENTS = load_deployments()


def test_the_recipes_deployments_are_shipped() -> None:
    assert RECIPE.keys() <= DEPLOYMENTS.keys()


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("name", RECIPE)
def test_the_recipes_command_comes_first_word_for_word(name: str, profile: Profile) -> None:
    begin = RECIPE[name] + " --host 127.0.0.1 --port 8000 --max-model-len "
    for version in VERSIONS:
        command = render(DEPLOYMENTS[name], profile, version, port=8000)
        assert command.shell().splitlines()[-1].startswith(begin), version
        uncached = "--no-enable-prefix-caching" in command.argv
        assert uncached is (profile is Profile.BENCHMARK), version


@pytest.mark.parametrize("name", RECIPE)
def test_each_is_possible_where_vllm_can(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    for version in VERSIONS:
        mla_is_missing = deployment.lane is Lane.REHEARSAL and version < Version("0.28")
        assert bool(why_impossible(deployment, version)) is mla_is_missing, version


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_each_file_is_named_for_its_deployment_and_says_why(file: Path) -> None:
    deployment = DEPLOYMENTS[file.stem]
    assert deployment.source
    assert (
        deployment.name.startswith((deployment.lane.value, "trained"))
        or deployment.lane is Lane.FULL
    )
    assert file.read_text(encoding="utf-8").count("# ") >= 4


@pytest.mark.parametrize("name", [n for n in RECIPE if "h200" in n or "b200" in n])
def test_full_deployments_keep_to_the_recipe(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment.options.max_model_len == 65536
    assert deployment.options.max_num_batched_tokens in (8192, 16384, 32768)
    assert deployment.options.moe_backend == ("flashinfer" if "b200" in name else None)
    assert (deployment.scale.length, deployment.scale.batch) == (1, 1)
    assert deployment.scale.speed_gated
    assert deployment.budgets.start == 3600


@pytest.mark.parametrize("name", [n for n in RECIPE if "h200" in n or "b200" in n])
def test_full_deployments_read_their_models_own_form(name: str) -> None:
    """R1 reasons before it answers; V3 does not, and a reader of reasoning would wait for its
    end for ever."""
    options = DEPLOYMENTS[name].options
    assert options.reasoning_parser == (None if name.startswith("v3") else "deepseek_r1")
    assert options.tool_call_parser == "deepseek_v3"
    assert DEPLOYMENTS[name].trained


@pytest.mark.parametrize("name", [n for n in DEPLOYMENTS if n.startswith(("sim", "slice"))])
def test_what_learned_nothing_is_asked_nothing(name: str) -> None:
    assert not DEPLOYMENTS[name].trained


@pytest.mark.parametrize("name", ["rehearsal-tp-ep", "rehearsal-dp-ep"])
def test_rehearsal_deployments_fit_two_cores(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment.model_is_generated
    assert deployment.layout.ranks == 2
    assert round(8000 * deployment.scale.length) == 128
    assert round(1000 * deployment.scale.length) == 16
    assert 16 * deployment.scale.batch == 4
    assert not deployment.scale.speed_gated
    assert deployment.memory.resident_gib == 12
    assert deployment.options.data_parallel_plugin


def test_digests_tell_deployments_apart() -> None:
    assert len({deployment.digest for deployment in DEPLOYMENTS.values()}) == len(DEPLOYMENTS)


def test_deployments_can_be_hashed() -> None:
    """Or pytest takes the tests of a deployment apart, and runs half of them on an ended server."""
    assert len(set(DEPLOYMENTS.values())) == len(DEPLOYMENTS)
