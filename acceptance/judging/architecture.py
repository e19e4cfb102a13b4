"""DeepSeek-V3's architecture, which R1 shares, in counts of parameters.

Source: `config.json` of deepseek-ai/DeepSeek-V3 (hidden 7168, 61 layers of which the first 3 are
dense, 256 routed experts and 1 shared, 8 used by each token). The counts sum to the published
671 B parameters, 37 B of them active for a token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FP8_BLOCK = 1 + 4 / 128**2  # bytes of a value: one, and a float32 scale for each 128 x 128 block
NVFP4 = 0.5 + 1 / 16  # half a byte, and an FP8 scale for each 16 values
BF16 = 2.0


@dataclass(frozen=True)
class Architecture:
    """Sizes of the model. Every property is a count of parameters, unless it says otherwise."""

    layers: int = 61
    dense_layers: int = 3
    hidden: int = 7168
    dense_width: int = 18432
    expert_width: int = 2048
    experts: int = 256
    shared_experts: int = 1
    experts_per_token: int = 8
    heads: int = 128
    q_rank: int = 1536
    kv_rank: int = 512
    nope: int = 128
    rope: int = 64
    value: int = 128
    vocabulary: int = 129280

    @property
    def moe_layers(self) -> int:
        """Layers that route tokens to experts."""
        return self.layers - self.dense_layers

    @property
    def latent_down(self) -> int:
        """Of one layer's attention, the projections to latent space: every rank holds them."""
        return self.hidden * (self.q_rank + self.kv_rank + self.rope)

    @property
    def attention_heads(self) -> int:
        """Of one layer's attention, what is divided by heads, without the output projection."""
        query = self.q_rank * (self.nope + self.rope)
        return self.heads * (query + self.kv_rank * (self.nope + self.value))

    @property
    def attention_output(self) -> int:
        """The output projection of one layer's attention."""
        return self.heads * self.value * self.hidden

    @property
    def attention(self) -> int:
        """All of one layer's attention."""
        return self.latent_down + self.attention_heads + self.attention_output

    @property
    def expert(self) -> int:
        """One expert: gate, up and down."""
        return 3 * self.hidden * self.expert_width

    @property
    def dense(self) -> int:
        """The feed-forward network of one dense layer."""
        return 3 * self.hidden * self.dense_width

    @property
    def router(self) -> int:
        """The router of one layer."""
        return self.experts * self.hidden

    @property
    def embedding(self) -> int:
        """The embedding table; the output head has as many."""
        return self.vocabulary * self.hidden

    @property
    def total(self) -> int:
        """All parameters."""
        routed = self.moe_layers * self.experts * self.expert
        return routed + self._without_routed + 2 * self.embedding

    @property
    def active(self) -> int:
        """Parameters that one token passes, without embedding and head."""
        return self.moe_layers * self.experts_per_token * self.expert + self._without_routed

    @property
    def kv_values(self) -> int:
        """Values that one token leaves in the KV cache, over all layers."""
        return self.layers * (self.kv_rank + self.rope)

    @property
    def causal_attention_flops(self) -> int:
        """FLOPs of attention over a prompt, per squared token: scores and values, half masked."""
        return self.layers * self.heads * (self.nope + self.rope + self.value)

    @property
    def _without_routed(self) -> int:
        moe = self.router + self.shared_experts * self.expert
        return self.layers * self.attention + self.moe_layers * moe + self.dense_layers * self.dense

    def with_layers(self, layers: int) -> Architecture:
        """The same model cut to its first layers. Raises ValueError when none is left."""
        if layers < 1:
            raise ValueError(f"a model has layers, not {layers}")
        return replace(self, layers=layers, dense_layers=min(self.dense_layers, layers))


DEEPSEEK_V3 = Architecture()


@dataclass(frozen=True)
class Weights:
    """Bytes of a parameter, by part of the model. Head, embedding and router are always BF16."""

    experts: float
    dense: float
    attention: float
    attention_output: float


WEIGHTS = {
    "fp8": Weights(FP8_BLOCK, FP8_BLOCK, FP8_BLOCK, FP8_BLOCK),
    # NVFP4 checkpoints leave attention in BF16. -FP4-v2 quantises its output projection, older ones
    # do not: the fewer bytes hold for both.
    "fp4": Weights(NVFP4, NVFP4, BF16, NVFP4),
    "bf16": Weights(BF16, BF16, BF16, BF16),
}
