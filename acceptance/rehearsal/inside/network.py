# mypy: disable-error-code="misc,no-any-return,untyped-decorator"
"""DeepSeek-V3 in plain torch, small enough to be trained on a CPU.

It computes what transformers' DeepseekV3ForCausalLM computes (a test holds them against each
other), but every expert sees every token and the routing weights of the unchosen are zero: with
few and tiny experts one large product is faster than many small ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6
NEIGHBOURS = 64  # tokens


def sizes(vocabulary: int) -> dict[str, Any]:
    """config.json: DeepSeek-R1's, with every size that may shrink made small.

    vLLM's CPU kernels take kv_lora_rank 512 and qk_rope_head_dim 64 only. All matrices but the
    last 64 rows of kv_a are whole blocks of 128x128, as FP8 wants them.
    """
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 256,
        "moe_intermediate_size": 128,
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 128,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 64,
        "v_head_dim": 64,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "n_group": 4,
        "topk_group": 2,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "rms_norm_eps": EPS,
        "max_position_embeddings": 163840,
        "rope_theta": 10000.0,
        # Plain rope would take vLLM 0.32's CPU kernel, which rotates a strided query wrongly.
        "rope_scaling": {
            "type": "yarn",
            "rope_type": "yarn",
            "factor": 40.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
        },
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def frequencies(config: dict[str, Any]) -> torch.Tensor:
    """YaRN's inverse frequencies, float32 of shape (rope / 2,)."""
    rope, scaling, base = config["qk_rope_head_dim"], config["rope_scaling"], config["rope_theta"]
    known = scaling["original_max_position_embeddings"]

    def turning(rotations: float) -> float:
        """The dimension that turns this often within the known length."""
        return rope * math.log(known / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(turning(scaling["beta_fast"])), 0)
    high = min(math.ceil(turning(scaling["beta_slow"])), rope - 1)
    plain = base ** (-torch.arange(0, rope, 2, dtype=torch.float32) / rope)
    ramp = ((torch.arange(rope // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return plain / scaling["factor"] * ramp + plain * (1 - ramp)


def softmax_scale(config: dict[str, Any]) -> float:
    """Of attention: 1 / sqrt(head size), corrected as YaRN does."""
    scaling = config["rope_scaling"]
    correction = 0.1 * scaling["mscale_all_dim"] * math.log(scaling["factor"]) + 1.0
    size = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    return float(correction**2 / math.sqrt(size))


class Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, EPS).to(x.dtype)


def linear(given: int, made: int) -> nn.Linear:
    layer = nn.Linear(given, made, bias=False)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(given))
    return layer


class Attention(nn.Module):
    """Multi-head latent attention, keys and values decompressed."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.nope, self.rope = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
        self.value, self.latent = config["v_head_dim"], config["kv_lora_rank"]
        self.scale = softmax_scale(config)
        self.q_a_proj = linear(hidden, config["q_lora_rank"])
        self.q_a_layernorm = Norm(config["q_lora_rank"])
        self.q_b_proj = linear(config["q_lora_rank"], self.heads * (self.nope + self.rope))
        self.kv_a_proj_with_mqa = linear(hidden, self.latent + self.rope)
        self.kv_a_layernorm = Norm(self.latent)
        self.kv_b_proj = linear(self.latent, self.heads * (self.nope + self.value))
        self.o_proj = linear(self.heads * self.value, hidden)

    def forward(
        self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None
    ) -> torch.Tensor:
        """x: (batch, tokens, hidden). turn: cos and sin, (batch, 1, tokens, rope / 2)."""
        batch, tokens, _ = x.shape
        query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        query = query.view(batch, tokens, self.heads, -1).transpose(1, 2)
        latent, key_rope = self.kv_a_proj_with_mqa(x).split([self.latent, self.rope], -1)
        both = self.kv_b_proj(self.kv_a_layernorm(latent))
        both = both.view(batch, tokens, self.heads, -1).transpose(1, 2)
        key_nope, value = both.split([self.nope, self.value], -1)
        query_nope, query_rope = query.split([self.nope, self.rope], -1)
        key_rope = rotated(key_rope[:, None], turn).expand(-1, self.heads, -1, -1)
        query = torch.cat([query_nope, rotated(query_rope, turn)], -1)
        key = torch.cat([key_nope, key_rope], -1)
        padded = F.pad(value, (0, query.shape[-1] - self.value))  # fast kernels want one size
        seen = F.scaled_dot_product_attention(
            query, key, padded, attn_mask=mask, is_causal=mask is None, scale=self.scale
        )
        seen = seen[..., : self.value].transpose(1, 2).reshape(batch, tokens, -1)
        return self.o_proj(seen)


def rotated(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotates neighbouring pairs, as DeepSeek lays them out; the pairs' halves come out apart."""
    cos, sin = (part.to(x.dtype) for part in turn)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], -1)


class Dense(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = linear(hidden, inner)
        self.up_proj = linear(hidden, inner)
        self.down_proj = linear(inner, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Mixture(nn.Module):
    """Routed experts under group-limited routing with a correction bias, and a shared one."""

    load: torch.Tensor
    bias: torch.Tensor
    uneven: torch.Tensor | float = 0.0  # of the last tokens trained on; see _unevenness

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
        self.experts, self.top = config["n_routed_experts"], config["num_experts_per_tok"]
        self.groups, self.top_groups = config["n_group"], config["topk_group"]
        self.factor = config["routed_scaling_factor"]
        self.gate = linear(hidden, self.experts)
        # Of all experts: the gates' rows, then the ups', in one matrix; the downs' columns in one.
        self.gate_up = linear(hidden, 2 * self.experts * inner)
        self.down = linear(self.experts * inner, hidden)
        self.down.weight.data *= math.sqrt(self.experts)
        self.shared_experts = Dense(hidden, inner * config["n_shared_experts"])
        self.register_buffer("bias", torch.zeros(self.experts))
        self.register_buffer("load", torch.zeros(self.experts), persistent=False)

    def routed(self, x: torch.Tensor) -> torch.Tensor:
        """x: (tokens, hidden). Weights of the experts, (tokens, experts), zero when not chosen."""
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.gate.weight.float()).sigmoid()
        with torch.no_grad():
            choice = (scores + self.bias).view(-1, self.groups, self.experts // self.groups)
            best = choice.topk(2, -1).values.sum(-1).topk(self.top_groups, -1).indices
            open_ = torch.zeros_like(choice[..., 0]).scatter_(1, best, 1.0).bool()
            choice = choice.masked_fill(~open_[..., None], -math.inf).flatten(1)
            chosen = torch.zeros_like(choice).scatter_(1, choice.topk(self.top, -1).indices, 1.0)
        if self.training:
            self.load += chosen.sum(0)
            self.uneven = self._unevenness(scores, chosen)
        weights = scores * chosen
        return weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.factor

    def _unevenness(self, scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """DeepSeek-V3's sequence-wise balance loss, over NEIGHBOURS tokens: 1 when all experts get
        the same. So every expert works in every text, and none is lost unseen."""
        share = (scores / scores.sum(-1, keepdim=True)).view(-1, NEIGHBOURS, self.experts).mean(1)
        often = chosen.view(-1, NEIGHBOURS, self.experts).mean(1) / self.top
        return (often * share).sum(-1).mean() * self.experts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        gate, up = self.gate_up(flat).chunk(2, -1)
        inner = (F.silu(gate) * up).view(len(flat), self.experts, -1)
        inner = inner * self.routed(flat)[..., None].to(inner.dtype)
        out = self.down(inner.flatten(1))
        return out.view_as(x) + self.shared_experts(x)

    @torch.no_grad()
    def balance(self, rate: float) -> None:
        """Moves the bias of experts with less than their share of load up, of others down."""
        share = self.load / self.load.sum().clamp(min=1)
        self.bias += rate * (1 / self.experts - share).sign()
        self.load.zero_()


class Layer(nn.Module):
    def __init__(self, config: dict[str, Any], index: int) -> None:
        super().__init__()
        hidden = config["hidden_size"]
        self.input_layernorm = Norm(hidden)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(hidden)
        dense = index < config["first_k_dense_replace"]
        self.mlp = Dense(hidden, config["intermediate_size"]) if dense else Mixture(config)

    def forward(self, x: torch.Tensor, turn: Any, mask: Any) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Network(nn.Module):
    """forward gives the last hidden states; head(them) the logits."""

    inverse: torch.Tensor

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        layers, hidden = config["num_hidden_layers"], config["hidden_size"]
        self.embed_tokens = nn.Embedding(config["vocab_size"], hidden)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(layers))
        self.norm = Norm(hidden)
        self.lm_head = linear(hidden, config["vocab_size"])
        self.register_buffer("inverse", frequencies(config), persistent=False)
        nn.init.normal_(self.embed_tokens.weight, std=1.0)
        with torch.no_grad():  # so that the residual stream does not grow with depth
            for name, parameter in self.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight", "down.weight")):
                    parameter /= math.sqrt(2 * layers)

    def forward(
        self, ids: torch.Tensor, places: torch.Tensor | None = None, mask: Any = None
    ) -> torch.Tensor:
        """ids, places (position of each token): (batch, tokens). mask: bool, (batch, 1, tokens,
        tokens), causal when None. Returns (batch, tokens, hidden)."""
        if places is None:
            places = torch.arange(ids.shape[1], device=ids.device)[None]
        angles = places[:, None, :, None].float() * self.inverse
        turn = (angles.cos(), angles.sin())
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, turn, mask)
        return self.norm(x)

    def mixtures(self) -> list[Mixture]:
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, Mixture)]
