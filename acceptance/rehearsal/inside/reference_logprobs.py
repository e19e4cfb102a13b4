"""Scores token ids with transformers' DeepseekV3ForCausalLM: `python -m … CHECKPOINT IN OUT`.

IN: JSON, {name: [token ids]}. OUT: JSON, {name: {"logprobs": [...], "best": [...]}}, both from
the second token on, in nats. Computed in float32 from the checkpoint's bfloat16 weights: an
independent account of what the network says, without a server's noise.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import DeepseekV3ForCausalLM


def main(checkpoint: str, given: Path, out: Path) -> None:
    model = DeepseekV3ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    scored = {}
    for name, tokens in json.loads(given.read_text()).items():
        ids = torch.tensor([tokens])
        with torch.no_grad():
            said = model(ids).logits[0, :-1].float().log_softmax(-1)
        asked = said.gather(1, ids[0, 1:, None])[:, 0]
        scored[name] = {"logprobs": asked.tolist(), "best": said.argmax(-1).tolist()}
    out.write_text(json.dumps(scored))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
