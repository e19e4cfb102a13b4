"""Writes the rehearsal checkpoint in a precision: `python -m … OUT --precision bf16|fp8|nvfp4`.

bf16 is what ships. fp8 is DeepSeek's own form: blocks of 128x128, each with a scale in float32.
nvfp4 is ModelOpt's: two values of four bits a byte, a scale in FP8 for 16 of them, one in float32
for the matrix, and one for what goes into it, taken from what goes into it on training lessons. As
in NVIDIA's DeepSeek-R1-FP4, attention, router and head stay bfloat16 there. Both have R1's head
sizes, which GPUs' kernels are built for; the heads' further values are zero.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from acceptance.rehearsal.checkpoint import UNPACKED
from acceptance.rehearsal.inside.formats import (
    BLOCK,
    FP4_MAX,
    FP8_MAX,
    GROUP,
    fp8_block,
    fp8_unpacked,
    nvfp4_packed,
    nvfp4_unpacked,
)
from acceptance.rehearsal.inside.heads import Tensors, with_r1_heads
from acceptance.rehearsal.inside.lessons import Lessons
from acceptance.rehearsal.inside.network import Dense, Mixture, Network
from acceptance.rehearsal.inside.tokenizer import build

WEIGHTS = Path(__file__).parents[1] / "weights"
GATED = (("gate_proj", "up_proj"), ("up_proj", "gate_proj"))
KEPT = ("embed_tokens", "norm", "lm_head", "mlp.gate.")  # in bfloat16, whatever the precision


def named(network: Network) -> Tensors:
    """The network's tensors by the names of a DeepSeek-V3 checkpoint."""
    made: Tensors = {}
    for name, tensor in network.state_dict().items():
        made[name if name == "lm_head.weight" else f"model.{name}"] = tensor.detach().cpu()
    for index, layer in enumerate(network.layers):
        if isinstance(layer.mlp, Mixture):
            mixture = layer.mlp
            place = f"model.layers.{index}.mlp."
            made[f"{place}gate.e_score_correction_bias"] = made.pop(f"{place}bias")
            gate, up = made.pop(f"{place}gate_up.weight").chunk(2)
            down = made.pop(f"{place}down.weight")
            for expert in range(mixture.experts):
                inside = f"{place}experts.{expert}."
                made[f"{inside}gate_proj.weight"] = gate.chunk(mixture.experts)[expert]
                made[f"{inside}up_proj.weight"] = up.chunk(mixture.experts)[expert]
                made[f"{inside}down_proj.weight"] = down.chunk(mixture.experts, 1)[expert]
    return {
        name: (tensor.float() if "correction_bias" in name else tensor.bfloat16()).contiguous()
        for name, tensor in made.items()
    }


def network_of(tensors: Tensors, config: dict[str, Any]) -> Network:
    """The network that has these tensors, in float32."""
    network = Network(config)
    state: Tensors = {}
    experts = range(config["n_routed_experts"])
    for name in network.state_dict():
        outer = name if name == "lm_head.weight" else f"model.{name}"
        place = outer.rpartition("mlp.")[0] + "mlp."
        each = [f"{place}experts.{expert}." for expert in experts]
        if name.endswith("mlp.bias"):
            state[name] = tensors[f"{place}gate.e_score_correction_bias"]
        elif name.endswith("mlp.gate_up.weight"):
            parts = ("gate_proj.weight", "up_proj.weight")
            state[name] = torch.cat([tensors[one + part] for part in parts for one in each])
        elif name.endswith("mlp.down.weight"):
            state[name] = torch.cat([tensors[f"{one}down_proj.weight"] for one in each], 1)
        else:
            state[name] = tensors[outer]
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    network.eval()
    return network


def shipped(folder: Path = WEIGHTS) -> tuple[Tensors, dict[str, Any]]:
    return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def is_quantised(name: str) -> bool:
    return name.endswith(".weight") and not any(part in name for part in KEPT)


def largest_inputs(network: Network) -> dict[str, float]:
    """The largest absolute value that enters each MLP's matrices, on 64 training lessons."""
    found: dict[str, float] = {}

    def keep(name: str, given: torch.Tensor) -> None:
        found[name] = max(found.get(name, 0.0), given.abs().max().item())

    for index, layer in enumerate(network.layers):
        place = f"model.layers.{index}.mlp."
        if isinstance(layer.mlp, Dense):
            _watch(layer.mlp, place, keep)
        elif isinstance(layer.mlp, Mixture):
            _watch(layer.mlp.shared_experts, f"{place}shared_experts.", keep)
            _watch_experts(layer.mlp, place, keep)
    with torch.no_grad():
        for document in islice(Lessons(build(), "calibration", longest=300), 64):
            network(torch.tensor([document.tokens]))
    return found


def _watch(dense: Dense, place: str, keep: Any) -> None:
    for part in ("gate_proj", "up_proj", "down_proj"):
        module = getattr(dense, part)
        module.register_forward_pre_hook(lambda _, given, part=part: keep(place + part, given[0]))


def _watch_experts(mixture: Mixture, place: str, keep: Any) -> None:
    """One value for all experts: kernels that fuse them want one."""

    def entering(_: Any, given: tuple[torch.Tensor, ...]) -> None:
        for expert in range(mixture.experts):
            keep(f"{place}experts.{expert}.gate_proj", given[0])
            keep(f"{place}experts.{expert}.up_proj", given[0])

    def made(_: Any, __: Any, out: torch.Tensor) -> None:
        gate, up = out.chunk(2, -1)
        for expert in range(mixture.experts):
            keep(f"{place}experts.{expert}.down_proj", torch.nn.functional.silu(gate) * up)

    mixture.gate_up.register_forward_pre_hook(entering)
    mixture.gate_up.register_forward_hook(made)


def as_fp8(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    made: Tensors = {}
    for name, tensor in tensors.items():
        if is_quantised(name):
            made[name], made[f"{name}_scale_inv"] = fp8_block(tensor)
        else:
            made[name] = tensor
    return made, {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
    }


def as_nvfp4(tensors: Tensors, config: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    made: Tensors = {}
    inputs = largest_inputs(network_of(tensors, config))
    for name, tensor in tensors.items():
        if not is_quantised(name) or ".mlp." not in name:
            made[name] = tensor
            continue
        # Kernels take gate and up for one matrix, and its scale from the first of them.
        pair = [tensors[name.replace(one, other)] for one, other in GATED if one in name]
        largest = torch.stack([matrix.abs().max() for matrix in (tensor, *pair)]).max()
        packed, scales, whole = nvfp4_packed(tensor, largest)
        made[name], made[f"{name}_scale"], made[f"{name}_scale_2"] = packed, scales, whole
        place = name.removesuffix(".weight")
        made[f"{place}.input_scale"] = torch.tensor(inputs[place] / (FP4_MAX * FP8_MAX))
    ignored = ["lm_head"]
    for layer in range(config["num_hidden_layers"]):
        ignored.append(f"model.layers.{layer}.self_attn*")
        if layer >= config["first_k_dense_replace"]:
            ignored.append(f"model.layers.{layer}.mlp.gate")
    return made, {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": None,
        "group_size": GROUP,
        "ignore": ignored,
    }


def unpacked(tensors: Tensors) -> Tensors:
    """What quantised tensors mean, as float32, by the names of a checkpoint that is not."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith((".weight_scale_inv", ".weight_scale", ".weight_scale_2", ".input_scale")):
            continue
        if f"{name}_scale_inv" in tensors:
            made[name] = fp8_unpacked(tensor, tensors[f"{name}_scale_inv"])
        elif f"{name}_scale_2" in tensors:
            scales = tensors[f"{name}_scale"], tensors[f"{name}_scale_2"]
            made[name] = nvfp4_unpacked(tensor, *scales)
        else:
            made[name] = tensor.float()
    return made


def export(out: Path, precision: str, source: Path = WEIGHTS) -> None:
    """A checkpoint that vLLM serves, in a folder that does not exist yet. A quantised one has a
    folder UNPACKED with the same weights as float32."""
    tensors, config = shipped(source)
    if precision != "bf16":
        tensors, config = with_r1_heads(tensors, config)
    if precision == "fp8":
        tensors, config["quantization_config"] = as_fp8(tensors)
    elif precision == "nvfp4":
        tensors, config["quantization_config"] = as_nvfp4(tensors, config)
    out.mkdir(parents=True)
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors") and file.is_file():
            shutil.copyfile(file, out / file.name)
    if precision == "nvfp4":
        _write_modelopt(out, config["quantization_config"])
    if precision != "bf16":
        (out / UNPACKED).mkdir()
        plain = {**config, "torch_dtype": "float32"}
        del plain["quantization_config"]
        (out / UNPACKED / "config.json").write_text(json.dumps(plain, indent=1) + "\n")
        save_file(unpacked(tensors), out / UNPACKED / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(tensors, out / "model.safetensors", {"format": "pt"})


def _write_modelopt(out: Path, said: dict[str, Any]) -> None:
    """ModelOpt's own file beside config.json, for versions that read that."""
    quantization = {key: said[key] for key in ("quant_algo", "kv_cache_quant_algo", "group_size")}
    quantization["exclude_modules"] = said["ignore"]
    (out / "hf_quant_config.json").write_text(
        json.dumps({"producer": {"name": "modelopt"}, "quantization": quantization}, indent=1)
        + "\n"
    )


def ship(trained: Path, out: Path = WEIGHTS) -> None:
    """What training left (state.pt) as the bf16 checkpoint, with tokenizer and defaults."""
    kept = torch.load(trained / "state.pt", map_location="cpu")
    config = kept["config"]
    network = Network(config)
    network.load_state_dict(kept["state"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(named(network), out / "model.safetensors", {"format": "pt"})
    build().save_pretrained(out)
    defaults = {  # as DeepSeek-R1 ships them
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
    }
    (out / "generation_config.json").write_text(json.dumps(defaults, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--precision", choices=["bf16", "fp8", "nvfp4"], default="bf16")
    given = parser.parse_args()
    export(given.out, given.precision)


if __name__ == "__main__":
    main()
