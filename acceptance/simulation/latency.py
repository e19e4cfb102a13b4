"""How long a step of the simulated server takes: a roofline of DeepSeek-V3 times declared factors.

Decoding reads every weight that the batch touches and its KV cache once a step; prefill is bound by
arithmetic. The ranks go in step, so the slowest decides. Constants are in model.toml.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("model.toml")
GIB = 2**30


@lru_cache
def constants() -> dict[str, Any]:
    """model.toml, read once."""
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class EngineLoad:
    """What one data-parallel engine does in a step. decodes: requests that get a token. context:
    tokens of KV cache that they read. prefill: prompt tokens computed. squares: sum over the pieces
    of prompts of end squared minus begin squared, which attention's arithmetic grows with."""

    decodes: int = 0
    context: float = 0.0
    prefill: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True)
class Machine:
    """GPUs with a model laid out over them. tensor, data: ranks of each kind, one GPU a rank;
    experts are spread over all of them."""

    gpu: str
    precision: str
    tensor: int
    data: int
    utilization: float | None = None

    @cached_property
    def _parts(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
        data = constants()
        return (
            data["model"],
            data["precision"][self.precision],
            data["gpu"][self.gpu],
            data["server"],
        )

    @property
    def ranks(self) -> int:
        return self.tensor * self.data

    @property
    def kv_bytes_per_token(self) -> int:
        """Of one rank: latent attention is replicated, not sharded, by tensor parallelism."""
        model, precision, _, _ = self._parts
        return int(model["layers"] * model["kv_width"] * precision["kv"])

    def weight_bytes(self, tokens: float | None = None) -> float:
        """Bytes of weights that the busiest rank reads for a step of so many tokens over the whole
        machine; with None, all that it holds."""
        model, precision, _, _ = self._parts
        total = model["experts"]
        touched = 1 - (1 - model["experts_per_token"] / total) ** (tokens or 0)
        active = total if tokens is None else total * touched
        routed = model["moe_layers"] * active * model["expert"] * precision["expert"]
        shared = model["moe_layers"] * model["expert"] * precision["expert"]
        dense = model["dense_layers"] * model["dense"] * precision["dense"]
        whole = model["layers"] * model["attention_whole"] * precision["attention"]
        output = model["attention_output"]
        rest = model["attention"] - model["attention_whole"] - output
        split = rest * precision["attention"] + output * precision["output"]
        head = model["head"] * 2 * (2 if tokens is None else 1)
        router = model["moe_layers"] * model["router"] * 2
        sharded = (shared + dense + model["layers"] * split + head) / self.tensor
        return float(routed / self.ranks + sharded + whole + router)

    def decode_bound(self, loads: list[EngineLoad]) -> float:
        """Seconds that reading weights and KV cache takes at full bandwidth; 0 when idle."""
        _, _, gpu, _ = self._parts
        tokens = sum(load.decodes for load in loads)
        if not tokens:
            return 0.0
        cache = max(load.context for load in loads) * self.kv_bytes_per_token
        return float((self.weight_bytes(tokens) + cache) / gpu["bandwidth"])

    def prefill_bound(self, loads: list[EngineLoad]) -> float:
        """Seconds that the prompts' arithmetic takes at the stated peak."""
        model, precision, gpu, _ = self._parts
        routed = 2 * model["moe_layers"] * model["experts_per_token"] * model["expert"]
        own = 2 * (
            model["layers"] * model["attention"]
            + model["moe_layers"] * model["expert"]
            + model["dense_layers"] * model["dense"]
        )
        linear, square = gpu[precision["flops"]], gpu["bf16"]
        each = model["layers"] * model["heads"] * model["head_width"]
        busiest = max(
            (own * load.prefill / linear + each * load.squares / square for load in loads),
            default=0.0,
        )
        spread = routed * sum(load.prefill for load in loads) / linear
        return float(busiest / self.tensor + spread / self.ranks)

    def decode_seconds(self, loads: list[EngineLoad]) -> float:
        """What a step's decoding takes here: the bound times its factor, and the overhead."""
        server, bound = self._parts[3], self.decode_bound(loads)
        return float(bound * server["decode_factor"] + server["decode_overhead"]) if bound else 0.0

    def prefill_seconds(self, loads: list[EngineLoad]) -> float:
        """What a step's prompts take here."""
        server = self._parts[3]
        return float(self.prefill_bound(loads) * server["prefill_factor"])

    def kv_gib(self, length_scale: float = 1.0) -> float:
        """GiB of one rank's KV cache, to the two decimals that vLLM logs. length_scale: shrinks it
        together with the requests, so that scaled ones queue as whole ones would."""
        _, _, gpu, server = self._parts
        usable = gpu["memory"] * (self.utilization or server["utilization"]) / GIB
        rest = usable - self.weight_bytes() / GIB - server["activation_gib"] - server["graphs_gib"]
        return round(float(rest) * length_scale, 2)

    def kv_tokens(self, block: int, length_scale: float = 1.0) -> int:
        """Tokens that one engine's KV cache holds, in whole blocks."""
        blocks = int(self.kv_gib(length_scale) * GIB) // (self.kv_bytes_per_token * block)
        return blocks * block
