"""Scores token ids with transformers' DeepseekV3ForCausalLM: `python -m … CHECKPOINT IN OUT TOP`.

IN: JSON, {name: [token ids]}. OUT: JSON, {"float32": {name: {"logprobs": [...], "best": [...],
"tops": [{id: logprob}, ...]}}, "bfloat16": ...}, from the second token on, in nats. float32 from
the checkpoint's weights is the independent account of what the network says, without a server's
noise; bfloat16 shows what the precision that servers compute in makes of the same network. Where
CHECKPOINT holds the unpacked weights of one in FP8 (its folder is in that one's), bfloat16 also
rounds what enters a matrix as such servers do: to e4m3, with a scale for every 128 values.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import DeepseekV3ForCausalLM

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK, LARGEST = 128, 448.0  # values that share a scale; e4m3's largest


def account(model: Any, prompts: dict[str, list[int]], top: int) -> dict[str, Any]:
    """Of every prompt, by name."""
    scored = {}
    for name, tokens in prompts.items():
        ids = torch.tensor([tokens])
        with torch.no_grad():
            said = model(ids).logits[0, :-1].float().log_softmax(-1)
        asked = said.gather(1, ids[0, 1:, None])[:, 0].tolist()
        best = said.topk(top)
        tops = [
            {**dict(zip(others, values, strict=True)), token: own}
            for others, values, token, own in zip(
                best.indices.tolist(), best.values.tolist(), tokens[1:], asked, strict=True
            )
        ]
        scored[name] = {"logprobs": asked, "best": said.argmax(-1).tolist(), "tops": tops}
    return scored


def rounded(given: torch.Tensor) -> torch.Tensor:
    """To e4m3 and back."""
    groups = given.float().unflatten(-1, (-1, BLOCK))
    scales = groups.abs().amax(-1, keepdim=True).clamp(min=1e-10) / LARGEST
    return ((groups / scales).to(torch.float8_e4m3fn).float() * scales).flatten(-2).to(given.dtype)


@contextmanager
def fp8_inputs(model: Any) -> Iterator[None]:
    """What enters a matrix is rounded, but for the router and the head."""
    kept = {model.config.n_routed_experts, model.config.vocab_size}  # by their rows
    plain = torch.nn.functional.linear

    def linear(given: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
        fits = given.shape[-1] % BLOCK == 0 and weight.shape[0] not in kept
        return plain(rounded(given) if fits else given, weight, bias)

    torch.nn.functional.linear = linear
    try:
        yield
    finally:
        torch.nn.functional.linear = plain


def quantised_as(checkpoint: Path) -> str:
    """How the checkpoint is quantised whose unpacked weights these are; empty for none."""
    config = checkpoint.parent / "config.json"
    if checkpoint.name != "unpacked" or not config.is_file():
        return ""
    said = json.loads(config.read_text()).get("quantization_config", {})
    return str(said.get("quant_method", ""))


def main(checkpoint: str, given: Path, out: Path, top: int) -> None:
    prompts = json.loads(given.read_text())
    model = DeepseekV3ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    made = {"float32": account(model, prompts, top)}
    model = model.to(torch.bfloat16)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # experts through `linear`, one by one
    fp8 = quantised_as(Path(checkpoint)) == "fp8"
    with fp8_inputs(model) if fp8 else nullcontext():
        made["bfloat16"] = account(model, prompts, top)
    out.write_text(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
