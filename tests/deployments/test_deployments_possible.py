"""Impossible deployments are told before launch, each with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from acceptance.deployments.possible import why_impossible

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.deployments.schema import Deployment

    Make = Callable[..., Deployment]

NOW = "0.32.0"

IMPOSSIBLE: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "hopper fp8",
        {"layout": {"tensor": 4, "expert": True}},
        NOW,
        "layout tp4+ep has 4 x 1 = 4 ranks (tensor x data), and gpus.count is 8",
    ),
    (
        "hopper fp8",
        {"layout": {"tensor": 4, "data": 4, "expert": True}},
        NOW,
        "has 4 x 4 = 16 ranks",
    ),
    ("hopper fp4", {}, NOW, "FP4 needs Blackwell (B200): H200 has no FP4 arithmetic"),
    ("hopper fp8", {"count": 3}, NOW, "128 attention heads cannot be split over"),
    ("hopper fp8", {"attention_backend": "FANCY"}, NOW, "cannot do attention_backend = FANCY"),
    ("hopper fp8", {"moe_backend": "fancy"}, NOW, "cannot do moe_backend = fancy"),
    ("hopper fp8", {"all2all_backend": "pplx"}, NOW, "it was removed in vLLM 0.17"),
    ("hopper fp8", {"lane": "rehearsal"}, NOW, "the rehearsal runs on CPU, and it asks for 8 H200"),
    ("cpu bf16", {"lane": "full"}, NOW, "the full lane needs GPUs, and gpus.count is 0"),
    ("cpu bf16", {"lane": "slice"}, NOW, "the slice lane needs GPUs"),
    ("cpu bf16", {}, "0.27.0", "no multi-head latent attention on CPU; it came with 0.28"),
    ("hopper fp8", {}, "0.11.2", "vLLM 0.11.2 is outside what this suite can launch"),
    (
        "hopper fp8",
        {"attention_backend": "FLASH_ATTN_MLA", "kv_cache_dtype": "fp8"},
        NOW,
        "attention_backend = FLASH_ATTN_MLA never stores an FP8 cache",
    ),
    (
        "hopper fp8",
        {"attention_backend": "TRITON_MLA", "kv_cache_dtype": "fp8"},
        "0.17.0",
        "TRITON_MLA never stores an FP8 cache in vLLM 0.17.0",
    ),
    (
        "blackwell fp4",
        {"attention_backend": "TOKENSPEED_MLA"},
        NOW,
        "TOKENSPEED_MLA only stores an FP8 cache in vLLM 0.32.0, and kv_cache_dtype is auto",
    ),
]


@pytest.mark.parametrize(("hardware", "changes", "version", "why"), IMPOSSIBLE)
def test_impossible(
    make: Make, hardware: str, changes: dict[str, Any], version: str, why: str
) -> None:
    reasons = why_impossible(make(*hardware.split(), **changes), Version(version))
    assert len(reasons) == 1
    assert why in reasons[0]


POSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    ("hopper fp8", {}, NOW),
    ("hopper fp8", {"layout": {"tensor": 4, "data": 2, "expert": True}}, NOW),
    ("hopper fp8", {"layout": {"tensor": 8}}, NOW),  # without expert parallelism
    ("hopper fp4", {"lane": "slice", "count": 1}, NOW),  # Marlin's kernels
    ("blackwell fp4", {"count": 4}, NOW),
    ("cpu bf16", {}, "0.32.0+cpu"),  # two ranks and no GPU
    ("hopper fp8", {"attention_backend": "TRITON_MLA", "kv_cache_dtype": "fp8"}, "0.18.0"),
    ("hopper fp8", {"attention_backend": "FLASH_ATTN_MLA"}, NOW),
    ("blackwell fp4", {"attention_backend": "TOKENSPEED_MLA", "kv_cache_dtype": "fp8"}, NOW),
    ("hopper fp8", {"lane": "simulated", "moe_backend": "whatever"}, NOW),
]


@pytest.mark.parametrize(("hardware", "changes", "version"), POSSIBLE)
def test_possible(make: Make, hardware: str, changes: dict[str, Any], version: str) -> None:
    assert why_impossible(make(*hardware.split(), **changes), Version(version)) == []


def test_all_reasons_are_told_at_once(make: Make) -> None:
    deployment = make("hopper", "fp4", layout={"tensor": 3}, moe_backend="fancy")
    assert len(why_impossible(deployment, Version(NOW))) == 4
