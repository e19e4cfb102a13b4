"""The least time that physics allows a server, and how many tokens its KV cache can hold.

Decoding reads from memory every weight that a step needs, and the KV cache of every request.
Prefill multiplies every token with every active weight. Nothing else is counted: no communication,
no launches, experts spread evenly. A real server takes longer; one that takes less was measured
wrongly, or did not do the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.judging.architecture import BF16, Architecture, Weights

if TYPE_CHECKING:
    from acceptance.judging.hardware import Gpu

UTILISATION = 0.9  # share of a GPU's memory, where the deployment leaves it to vLLM
RESERVE = 5e9  # bytes of a GPU for activations, graphs and libraries: assumed


@dataclass(frozen=True)
class Roofline:
    """One server. tensor, data: its parallelism; experts are spread over all ranks.

    kv_bytes: of one value in the KV cache. flops: "fp8", "fp4" or "bf16", of linear layers.
    uniform: tokens choose experts independently, as in the published figures; when False, all
    tokens of a step may choose the same ones, which holds for any weights, dummy ones too.
    """

    model: Architecture
    weights: Weights
    gpu: Gpu
    tensor: int = 1
    data: int = 1
    kv_bytes: float = BF16
    flops: str = "fp8"
    uniform: bool = True

    @property
    def ranks(self) -> int:
        """GPUs of the server."""
        return self.tensor * self.data

    def distinct_experts(self, batch: int) -> float:
        """Experts of one layer that a step of `batch` tokens reads: expected, or the fewest."""
        model = self.model
        if not self.uniform:
            return float(model.experts_per_token)
        used = model.experts_per_token / model.experts
        return model.experts * (1 - (1 - used) ** batch)

    def machine_bytes(self, batch: int) -> float:
        """Weights that one decode step reads, each once: bytes over the whole machine."""
        return self._routed(self.distinct_experts(batch)) + self._shared(tensor=1)

    def tpot_ms(self, batch: int, context: float) -> float:
        """Least time of a decode step, in ms. batch: requests at once; context: tokens that each
        has behind it, on average over its output."""
        weights = self._routed(self.distinct_experts(batch)) / self.ranks
        held = math.ceil(batch / self.data) * context * self.kv_token_bytes
        return (weights + self._shared(self.tensor) + held) / self.gpu.bandwidth * 1e3

    def prefill_ms(self, prompt: int) -> float:
        """Least time that the whole machine needs for one prompt of so many tokens, in ms. The
        last of N prompts that arrive at once waits N times as long."""
        linear = 2 * self.model.active * prompt / self.gpu.flops[self.flops]
        scores = self.model.causal_attention_flops * prompt**2 / self.gpu.flops["bf16"]
        return (linear + scores) / self.ranks * 1e3

    def mean_ttft_ms(self, batch: int, prompt: int) -> float:
        """Least mean TTFT of a burst, in ms: whatever the order, the i-th first token cannot come
        before i prompts are computed."""
        return (batch + 1) / 2 * self.prefill_ms(prompt)

    @property
    def kv_token_bytes(self) -> float:
        """Bytes of one token in the KV cache. Tensor parallelism does not divide them."""
        return self.model.kv_values * self.kv_bytes

    @property
    def weights_per_rank(self) -> float:
        """Bytes of weights that one GPU holds, the embedding table included."""
        embedding = self.model.embedding * BF16 / self.tensor
        return self._routed(self.model.experts) / self.ranks + self._shared(self.tensor) + embedding

    def kv_tokens(self, utilisation: float = UTILISATION, reserve: float = RESERVE) -> float:
        """Tokens that the KV caches of all engines hold together, by estimate; 0 when the weights
        do not fit. The server's own start-up log has the true number."""
        left = self.gpu.memory * utilisation - reserve - self.weights_per_rank
        return self.data * max(left, 0.0) / self.kv_token_bytes

    def _routed(self, experts: float) -> float:
        return self.model.moe_layers * experts * self.model.expert * self.weights.experts

    def _shared(self, tensor: int) -> float:
        """Bytes of all but the routed experts and the embedding, on one of `tensor` ranks."""
        model, weights = self.model, self.weights
        heads = model.attention_heads * weights.attention
        output = model.attention_output * weights.attention_output
        shared = model.moe_layers * model.shared_experts * model.expert * weights.experts
        dense = model.dense_layers * model.dense * weights.dense
        head = model.embedding * BF16
        divided = model.layers * (heads + output) + shared + dense + head
        router = model.moe_layers * model.router * BF16
        return divided / tensor + model.layers * model.latent_down * weights.attention + router
