"""The rehearsal's network: what transformers computes; trained alike each time; exported whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.rehearsal.tasks import KINDS, held_out, needle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

for needed in ("torch", "transformers"):
    pytest.importorskip(needed, reason=f"{needed} is in the rehearsal's environment only")

import torch  # noqa: E402 - see above
from safetensors.torch import load_file  # noqa: E402
from transformers import DeepseekV3ForCausalLM  # noqa: E402

from acceptance.rehearsal.checkpoint import UNPACKED  # noqa: E402
from acceptance.rehearsal.inside import formats  # noqa: E402
from acceptance.rehearsal.inside.export import WEIGHTS, export, named, network_of, shipped  # noqa: E402
from acceptance.rehearsal.inside.network import Network, sizes  # noqa: E402
from acceptance.rehearsal.inside.tokenizer import VOCABULARY  # noqa: E402
from acceptance.rehearsal.inside.train import (  # noqa: E402
    Plan,
    batch,
    exact,
    learn,
    optimizers_of,
    tokenizer,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of so small products wait for each other, the more so beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> Any:
    """The shipped one."""
    return network_of(*shipped())


def test_it_computes_what_transformers_computes(network: Any) -> None:
    """Another account of MLA, routing, YaRN and norms; so what was trained is what is served."""
    ids = torch.tensor([tokenizer().encode(held_out("lookup", 3)[2].prompt * 3)])
    theirs = DeepseekV3ForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(ids).logits.log_softmax(-1)
        found = network.lm_head(network(ids)).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_it_answers_what_it_was_not_trained_on(network: Any) -> None:
    """A few of each kind; docs/rehearsal.md has the table of many, asked through vLLM."""
    asked = [task for kind in KINDS for task in held_out(kind, 4, seed=5)]
    asked += [needle(300, depth, seed=5) for depth in (0, 0.5, 1)]
    assert exact(network, asked) > 0.9


def test_its_configuration_is_the_codes() -> None:
    assert shipped()[1] == sizes(VOCABULARY)


def test_its_tensors_are_named_as_deepseeks_and_come_back(network: Any) -> None:
    tensors, config = shipped()
    assert {name: tensor.dtype for name, tensor in named(network).items()} == {
        name: tensor.dtype for name, tensor in tensors.items()
    }
    for name, tensor in named(network_of(tensors, config)).items():
        assert torch.equal(tensor, tensors[name]), name


def test_training_steps_are_the_same_each_time() -> None:
    """And they learn: the third loss is below the first."""
    plan = Plan(steps=4, rows=1, every=3)

    def losses() -> list[float]:
        torch.manual_seed(1)
        network = Network(sizes(VOCABULARY))
        optimizers = optimizers_of(network, plan)
        rows = batch(plan, 1)
        return [learn(network, optimizers, plan, step, rows).item() for step in range(3)]

    first = losses()
    assert first == losses()
    assert first[2] < first[0]


def test_rows_keep_documents_apart() -> None:
    rows = batch(Plan(rows=2), 0)
    for places, owner, weights in zip(rows["places"], rows["owner"], rows["weights"], strict=True):
        starts = [i for i in range(len(owner)) if i == 0 or owner[i] != owner[i - 1]]
        assert len(starts) > 1
        assert all(places[start] == 0 and weights[start] == 0 for start in starts)
    again = batch(Plan(rows=2), 0)
    assert all((rows[name] == again[name]).all() for name in rows)
    assert (batch(Plan(rows=2), 1)["ids"] != rows["ids"]).any()


@pytest.mark.parametrize("rows", [128, 200, 576])
def test_fp8_blocks_come_back_within_their_step(rows: int) -> None:
    weight = torch.randn(rows, 256, generator=torch.Generator().manual_seed(1))
    weight[:128, :128] *= 100  # one block's large values must not cost the others theirs
    packed, scale = formats.fp8_block(weight)
    assert packed.dtype == torch.float8_e4m3fn
    assert scale.shape == (-(-rows // 128), 2)
    back = formats.fp8_unpacked(packed, scale)
    # Three bits of mantissa: half a step is 1/16 of a value, and less than that of a small one.
    assert ((back - weight).abs() <= weight.abs() / 16 + scale.max() / 512).all()
    assert (back - weight)[:128, 128:].abs().max() < 0.3


def test_nvfp4_comes_back_within_its_step() -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(1)) / 8
    packed, scales, whole = formats.nvfp4_packed(weight)
    assert (packed.dtype, packed.shape) == (torch.uint8, (64, 64))
    assert (scales.dtype, scales.shape) == (torch.float8_e4m3fn, (64, 8))
    back = formats.nvfp4_unpacked(packed, scales, whole)
    largest = weight.abs().view(64, 8, 16).amax(-1).repeat_interleave(16, 1)
    # The widest step is from 4 to 6 of 6, half of it 1/6; the scale's own rounding adds 1/16.
    assert ((back - weight).abs() <= largest * (1 / 6 + 1 / 16)).all()
    assert (back - weight).pow(2).mean().sqrt() / weight.pow(2).mean().sqrt() < 0.12
    exact_values = torch.tensor([[0.0, 0.5, -1, 1.5, -2, 3, -4, 6] * 2])
    assert torch.equal(formats.nvfp4_unpacked(*formats.nvfp4_packed(exact_values)), exact_values)


@pytest.mark.parametrize("precision", ["bf16", "fp8", "nvfp4"])
def test_an_export_answers_as_the_shipped_one(network: Any, tmp_path: Path, precision: str) -> None:
    """Dequantised by hand; its kernels want a GPU."""
    out = tmp_path / precision
    export(out, precision)
    config = json.loads((out / "config.json").read_text())
    tensors = load_file(out / "model.safetensors")
    stored = dict(tensors)
    if precision == "fp8":
        assert config["quantization_config"]["weight_block_size"] == [128, 128]
        scaled = [name for name in tensors if name.endswith("weight_scale_inv")]
        assert any("kv_b_proj" in name for name in scaled)
        assert not any("gate.weight" in name or "lm_head" in name for name in scaled)
        for name in scaled:
            weight = name.removesuffix("_scale_inv")
            tensors[weight] = formats.fp8_unpacked(tensors[weight], tensors.pop(name))
    if precision == "nvfp4":
        ignored = config["quantization_config"]["ignore"]
        assert {"lm_head", "model.layers.0.self_attn*", "model.layers.1.mlp.gate"} <= set(ignored)
        assert (out / "hf_quant_config.json").exists()
        for name in [name for name in tensors if name.endswith("weight_scale")]:
            weight = name.removesuffix("_scale")
            whole = tensors.pop(f"{weight}_scale_2")
            entering = tensors.pop(f"{weight.removesuffix('.weight')}.input_scale")
            assert 0 < entering * 448 * 6 < 1000
            assert ".mlp." in weight
            packed, scales = tensors[weight], tensors.pop(name)
            tensors[weight] = formats.nvfp4_unpacked(packed, scales, whole)
        for gate in [name for name in tensors if "gate_proj.weight" in name]:
            # vLLM's kernels hold both in one matrix and read the scale of the first.
            assert stored[f"{gate}_scale_2"] == stored[gate.replace("gate", "up") + "_scale_2"]
    if precision != "bf16":
        heads = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
        assert heads == (128, 64, 128), "R1's, which GPUs' kernels are built for"
        plain = load_file(out / UNPACKED / "model.safetensors")
        assert plain.keys() == tensors.keys()
        assert all(torch.equal(plain[name], tensors[name].float()) for name in plain)
        assert "quantization_config" not in json.loads((out / UNPACKED / "config.json").read_text())
    served = network_of(tensors, config)
    asked = [task for kind in KINDS for task in held_out(kind, 3, seed=6)]
    right = exact(served, asked)
    assert right == exact(network, asked) if precision == "bf16" else right > 0.7
