"""The command line: the recipe first, then what the suite adds; nothing secret in it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from acceptance.deployments.command import render, render_nodes
from acceptance.deployments.load import load_deployments
from acceptance.deployments.nodes import planned_site
from acceptance.deployments.schema import Deployment, Profile
from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

DEPLOYMENTS = load_deployments()
FP4 = DEPLOYMENTS["fp4-4xb200-tp-ep"]
VERSION = Version("0.32.0")


def test_a_whole_command_of_a_recent_vllm() -> None:
    command = render(FP4, Profile.BENCHMARK, VERSION, port=8123)
    assert command.shell() == (
        "export VLLM_ENGINE_READY_TIMEOUT_S=3600\n"
        "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve nvidia/DeepSeek-R1-FP4 --trust-remote-code "
        "--tensor-parallel-size 4 --enable-expert-parallel --host 127.0.0.1 --port 8123 "
        "--max-model-len 65536 --max-num-batched-tokens 8192 --moe-backend flashinfer_trtllm "
        "--reasoning-parser deepseek_r1 --tool-call-parser deepseek_v3 --enable-auto-tool-choice "
        "--no-enable-prefix-caching --shutdown-timeout 30 --fail-on-environ-validation"
    )


def test_a_whole_command_of_the_recipes_time() -> None:
    command = render(FP4, Profile.BENCHMARK, Version("0.12.0"), port=8123)
    assert command.shell() == (
        "export VLLM_USE_FLASHINFER_MOE_FP4=1\n"
        "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve nvidia/DeepSeek-R1-FP4 --trust-remote-code "
        "--tensor-parallel-size 4 --enable-expert-parallel --host 127.0.0.1 --port 8123 "
        "--max-model-len 65536 --max-num-batched-tokens 8192 --reasoning-parser deepseek_r1 "
        "--tool-call-parser deepseek_v3 --enable-auto-tool-choice --no-enable-prefix-caching"
    )


def test_what_is_run_is_what_is_shown() -> None:
    command = render(FP4, Profile.SERVING, VERSION, port=1)
    words = shlex.split(command.shell().splitlines()[-1])
    assert words[0] == f"CUDA_VISIBLE_DEVICES={command.env['CUDA_VISIBLE_DEVICES']}"
    assert tuple(words[1:]) == command.argv
    assert command.recipe == tuple(words[: len(command.recipe)])
    assert command.run_by(["/venv/bin/vllm"])[:2] == ("/venv/bin/vllm", "serve")
    assert command.run_by(["python", "-m", "vllm"])[3:] == command.argv[1:]


def test_leased_gpus_are_named_in_front() -> None:
    leased = ["GPU-4", "GPU-5", "GPU-6", "GPU-7"]
    command = render(FP4, Profile.SERVING, VERSION, port=1, gpus=leased)
    assert command.env["CUDA_VISIBLE_DEVICES"] == "GPU-4,GPU-5,GPU-6,GPU-7"
    assert "\nCUDA_VISIBLE_DEVICES=GPU-4,GPU-5,GPU-6,GPU-7 vllm serve" in command.shell()


def test_a_whole_node_names_no_gpus_unless_leased() -> None:
    hopper = DEPLOYMENTS["fp8-8xh200-tp-ep"]
    assert "CUDA" not in render(hopper, Profile.SERVING, VERSION, port=1).shell()
    leased = render(hopper, Profile.SERVING, VERSION, port=1, gpus=[str(i) for i in range(8)])
    assert leased.env["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"


@pytest.mark.parametrize("gpus", [["0"], [], ["0", "0", "1", "2"], ["0", "1", "2", "3", "4"]])
def test_another_number_of_gpus_is_refused(gpus: list[str]) -> None:
    with pytest.raises(InputError, match="takes 4 GPUs"):
        render(FP4, Profile.SERVING, VERSION, port=1, gpus=gpus)


def test_a_checkpoint_elsewhere_keeps_its_served_name() -> None:
    rehearsal = DEPLOYMENTS["rehearsal-dp-ep"]
    command = render(rehearsal, Profile.SERVING, VERSION, port=1, model="/data/my tiny")
    assert command.argv[:3] == ("vllm", "serve", "/data/my tiny")
    at = command.argv.index("--served-model-name")
    assert command.argv[at + 1] == rehearsal.model
    assert "vllm serve '/data/my tiny' --trust-remote-code" in command.shell()
    assert "CUDA_VISIBLE_DEVICES" not in command.env
    assert command.env["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"
    assert "export VLLM_CPU_OMP_THREADS_BIND='0|1'\n" in command.shell()


LAYOUTS = {
    "--tensor-parallel-size 8 --enable-expert-parallel": {"tensor": 8, "expert": True},
    "--data-parallel-size 8 --enable-expert-parallel": {"data": 8, "expert": True},
    "--tensor-parallel-size 4 --data-parallel-size 2 --enable-expert-parallel": {
        "tensor": 4,
        "data": 2,
        "expert": True,
    },
    "--tensor-parallel-size 8 --host": {"tensor": 8},
    "--tensor-parallel-size 1 --enable-expert-parallel": {"expert": True},
}


@pytest.mark.parametrize("words", LAYOUTS)
def test_layouts(make: Callable[..., Deployment], words: str) -> None:
    deployment = make(layout=LAYOUTS[words])
    command = render(deployment, Profile.SERVING, VERSION, port=1)
    assert f"--trust-remote-code {words} " in command.shell()


def test_a_tokenizer_of_its_own_is_passed() -> None:
    deployment = FP4.model_copy(update={"tokenizer": "deepseek-ai/DeepSeek-R1"})
    argv = render(deployment, Profile.SERVING, VERSION, port=1).argv
    assert argv[argv.index("--tokenizer") + 1] == "deepseek-ai/DeepSeek-R1"


def test_servers_listen_on_loopback_alone_and_carry_no_key() -> None:
    for deployment in DEPLOYMENTS.values():
        site = planned_site(deployment, 1, 2)
        command = render_nodes(deployment, Profile.SERVING, VERSION, site=site)
        assert command.argv[command.argv.index("--host") + 1] == "127.0.0.1"
        assert "KEY" not in command.shell().upper()


def test_what_a_version_lacks_is_noted() -> None:
    notes = render(FP4, Profile.SERVING, Version("0.16.0"), port=1).notes
    assert any("no --shutdown-timeout before vLLM 0.18" in note for note in notes)
    assert any("no --fail-on-environ-validation before vLLM 0.17" in note for note in notes)
