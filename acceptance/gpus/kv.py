"""KV cache arithmetic of multi-head latent attention: bytes a token, tokens a cache.

A layer stores one latent vector a token, kv_lora_rank + qk_rope_head_dim values, however many heads
there are. Tensor parallelism does not divide it: every rank holds its engine's whole cache. Read in
vLLM 0.32.0, v1/kv_cache_interface.py and v1/core/kv_cache_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acceptance.errors import InputError

GIB = 1 << 30
# "Available KV cache memory: 91.24 GiB": what two decimals may hide, rounded up to whole bytes.
LOGGED_GIB_SLACK = GIB // 200 + 1

_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2} | dict.fromkeys(
    ("fp8", "fp8_e4m3", "fp8_e5m2"), 1
)


@dataclass(frozen=True, slots=True)
class KvShape:
    """What one token takes. width: values a layer; value_bytes: bytes a value."""

    layers: int
    width: int
    value_bytes: int

    @property
    def bytes_per_token(self) -> int:
        return self.layers * self.width * self.value_bytes


def kv_shape(
    config: Mapping[str, object], cache_dtype: str = "auto", *, draft_layers: int = 0
) -> KvShape:
    """The shape for a checkpoint's config.json.

    cache_dtype: as the running server tells it (cache_config_info); "auto" means what the
    checkpoint's quantisation says of its KV cache, else its own type. draft_layers: layers of a
    multi-token-prediction head that is served too. Raises InputError for a model without latent
    attention, and for a cache type whose layout is not this one.
    """
    rank, rope = config.get("kv_lora_rank"), config.get("qk_rope_head_dim")
    layers = config.get("num_hidden_layers")
    if not (isinstance(rank, int) and isinstance(rope, int) and isinstance(layers, int)):
        raise InputError(
            "The checkpoint's config does not describe multi-head latent attention",
            asked="kv_lora_rank, qk_rope_head_dim and num_hidden_layers, as whole numbers",
        )
    resolved = _resolved(config, cache_dtype)
    if resolved not in _BYTES:
        raise InputError(
            f"The bytes per token of KV cache type {resolved!r} are not known",
            hint=f"known: auto, {', '.join(_BYTES)}",
        )
    return KvShape(layers + draft_layers, rank + rope, _BYTES[resolved])


def _resolved(config: Mapping[str, object], cache_dtype: str) -> str:
    """As vLLM resolves it. Newer transformers write "dtype" where older wrote "torch_dtype"."""
    if cache_dtype != "auto":
        return cache_dtype.removeprefix("torch.")
    quantisation = config.get("quantization_config")
    if isinstance(quantisation, Mapping) and str(quantisation.get("quant_method", "")).startswith(
        "modelopt"
    ):
        inner = quantisation.get("quantization", quantisation)
        told = inner.get("kv_cache_quant_algo") if isinstance(inner, Mapping) else None
        scheme = quantisation.get("kv_cache_scheme")
        if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8:
            told = told or "fp8"
        if isinstance(told, str):
            return told.lower()
    return str(config.get("torch_dtype") or config.get("dtype")).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Capacity:
    """Whether the tokens a server reports follow from its bytes. low and high: inclusive bounds in
    tokens, as far apart as block rounding and the printed decimals of the bytes make them."""

    reported: int
    low: int
    high: int

    @property
    def agrees(self) -> bool:
        return self.low <= self.reported <= self.high

    @property
    def off_by(self) -> int:
        """Tokens beyond the nearer bound; 0 within, negative below."""
        return min(self.reported - self.low, 0) or max(self.reported - self.high, 0)


def check_capacity(
    *,
    reported_tokens: int,
    available_bytes: int,
    bytes_per_token: int,
    block_size: int,
    max_model_len: int,
    slack_bytes: int = 0,
) -> Capacity:
    """Checks one engine's kv_cache_size_tokens against the bytes of one of its ranks.

    vLLM fills the bytes with whole blocks, and counts tokens as requests of max_model_len, each in
    whole blocks too; that can only lower the number. slack_bytes: LOGGED_GIB_SLACK when the bytes
    come from the log. With tensor parallelism, give the rank that has least.
    """
    block_bytes = bytes_per_token * block_size
    blocks_per_request = -(-max_model_len // block_size)
    fewest = max(available_bytes - slack_bytes, 0) // block_bytes
    most = (available_bytes + slack_bytes) // block_bytes
    # one less, because vLLM truncates a float product
    low = max(fewest * max_model_len // blocks_per_request - 1, 0)
    return Capacity(reported_tokens, low, most * block_size)


def max_concurrency(tokens: int, max_model_len: int) -> float:
    """How many requests of the full length fit at once."""
    return tokens / max_model_len
