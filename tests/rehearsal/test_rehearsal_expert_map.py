"""Under the CPU expert-map plugin, the ranks' shares of the experts add up to all of them."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is in the rehearsal's environment only")

from acceptance.rehearsal.inside.cpu_expert_map import _mapped  # noqa: E402 - needs torch

TOKENS, HIDDEN, INNER, EXPERTS, TOP = 7, 8, 6, 8, 3
PLACEMENTS = {
    "linear": [[0, 1, 2, 3], [4, 5, 6, 7]],
    "round robin": [[0, 2, 4, 6], [1, 3, 5, 7]],
    "uneven": [[6], [5, 0, 1, 2, 3, 4, 7]],
}


class Kernel:
    """vLLM 0.32's CPU experts in small: knows its own weights only, takes ids as local ones."""

    def apply(
        self,
        output: Any,
        hidden_states: Any,
        w1: Any,
        w2: Any,
        topk_weights: Any,
        topk_ids: Any,
        expert_map: Any,
        apply_router_weight_on_input: bool = False,
    ) -> None:
        assert topk_weights.is_contiguous()
        assert topk_ids.is_contiguous()
        for token, row in enumerate(hidden_states):
            output[token] = sum(
                weight * (w2[expert] @ torch.nn.functional.silu(w1[expert] @ row))
                for weight, expert in zip(topk_weights[token], topk_ids[token], strict=True)
            )


class Mapped(Kernel):
    apply = _mapped(Kernel.apply)


@pytest.fixture
def layer() -> dict[str, Any]:
    """One layer's input and weights, float64 so that the order of sums does not show."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scores = drawn(TOKENS, EXPERTS).softmax(-1)
    weights, ids = scores.topk(TOP)
    return {
        "hidden_states": drawn(TOKENS, HIDDEN),
        "w1": drawn(EXPERTS, INNER, HIDDEN),
        "w2": drawn(EXPERTS, HIDDEN, INNER),
        "topk_weights": weights,
        "topk_ids": ids,
    }


def dense(layer: dict[str, Any]) -> Any:
    output = torch.zeros(TOKENS, HIDDEN, dtype=torch.float64)
    Kernel().apply(output, **layer, expert_map=None)
    return output


def of_rank(layer: dict[str, Any], experts: list[int], dtype: Any) -> dict[str, Any]:
    """What a rank that has these experts is called with."""
    expert_map = torch.full((EXPERTS,), -1, dtype=torch.int32)
    expert_map[experts] = torch.arange(len(experts), dtype=torch.int32)
    mine = {"w1": layer["w1"][experts], "w2": layer["w2"][experts]}
    return {**layer, **mine, "topk_ids": layer["topk_ids"].to(dtype), "expert_map": expert_map}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ranks_add_up_to_a_layer_that_has_all_experts(
    layer: dict[str, Any], placement: str, dtype: Any
) -> None:
    total = torch.zeros(TOKENS, HIDDEN, dtype=torch.float64)
    for experts in PLACEMENTS[placement]:
        output = torch.full((TOKENS, HIDDEN), float("nan"), dtype=torch.float64)
        Mapped().apply(output, **of_rank(layer, experts, dtype))
        total += output
    torch.testing.assert_close(total, dense(layer))


def test_without_the_plugin_a_rank_reads_past_its_experts(layer: dict[str, Any]) -> None:
    """What it is for; should the kernel learn of the map, it is wanted no more."""
    output = torch.zeros(TOKENS, HIDDEN, dtype=torch.float64)
    with pytest.raises(IndexError):
        Kernel().apply(output, **of_rank(layer, [0, 1, 2, 3], torch.int32))


def test_positions_and_defaults_are_as_in_the_kernel(layer: dict[str, Any]) -> None:
    given = of_rank(layer, [0, 1, 2, 3], torch.int32)
    one, other = (torch.zeros(TOKENS, HIDDEN, dtype=torch.float64) for _ in range(2))
    Mapped().apply(one, **given)
    Mapped().apply(other, *given.values(), False)
    assert torch.equal(one, other)


def test_the_callers_tensors_are_left_alone(layer: dict[str, Any]) -> None:
    given = of_rank(layer, [4, 5, 6, 7], torch.int32)
    kept = {name: tensor.clone() for name, tensor in given.items()}
    Mapped().apply(torch.zeros(TOKENS, HIDDEN, dtype=torch.float64), **given)
    assert all(torch.equal(given[name], kept[name]) for name in kept)


def test_without_a_map_nothing_changes(layer: dict[str, Any]) -> None:
    output = torch.zeros(TOKENS, HIDDEN, dtype=torch.float64)
    Mapped().apply(output, **layer, expert_map=None)
    assert torch.equal(output, dense(layer))


@pytest.mark.parametrize(
    ("module", "kind", "method", "wanted"),
    [
        (
            "model_executor/layers/fused_moe/experts/cpu_moe.py",
            "CPUUnquantizedExperts",
            "apply",
            {"expert_map", "topk_ids", "topk_weights"},
        ),
        (
            "distributed/device_communicators/base_device_communicator.py",
            "DeviceCommunicatorBase",
            "all_gatherv",
            {"input_", "dim", "sizes"},
        ),
        (
            "distributed/device_communicators/base_device_communicator.py",
            "DeviceCommunicatorBase",
            "reduce_scatterv",
            {"input_", "dim", "sizes"},
        ),
        ("v1/worker/gpu_model_runner.py", "GPUModelRunner", "_sample", {"self", "logits"}),
        ("v1/worker/gpu_model_runner.py", "GPUModelRunner", "_bookkeeping_sync", {"self"}),
    ],
)
def test_what_the_plugins_replace_is_there(
    module: str, kind: str, method: str, wanted: set[str]
) -> None:
    """Read in the source of the vLLM beside us, which takes seconds to import."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no vLLM beside this interpreter")
    tree = ast.parse((Path(spec.submodule_search_locations[0]) / module).read_text())
    [defined] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind]
    [found] = [n for n in defined.body if isinstance(n, ast.FunctionDef) and n.name == method]
    assert wanted <= {argument.arg for argument in found.args.args}
