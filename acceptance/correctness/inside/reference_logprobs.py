"""Scores token ids with transformers' DeepseekV3ForCausalLM: `python -m … CHECKPOINT IN OUT TOP`.

IN: JSON, {name: [token ids]}. OUT: JSON, {"float32": {name: {"logprobs": [...], "best": [...],
"tops": [{id: logprob}, ...]}}, "bfloat16": ...}, from the second token on, in nats. float32 from
the checkpoint's weights is the independent account of what the network says, without a server's
noise; bfloat16 shows what the precision that servers compute in makes of the same network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import DeepseekV3ForCausalLM


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


def main(checkpoint: str, given: Path, out: Path, top: int) -> None:
    prompts = json.loads(given.read_text())
    model = DeepseekV3ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    made = {"float32": account(model, prompts, top)}
    made["bfloat16"] = account(model.to(torch.bfloat16), prompts, top)
    out.write_text(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
