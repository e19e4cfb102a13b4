"""KV cache arithmetic against figures seen on real servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptance.errors import InputError
from acceptance.gpus.kv import (
    GIB,
    LOGGED_GIB_SLACK,
    KvShape,
    check_capacity,
    kv_shape,
    max_concurrency,
)

R1: dict[str, Any] = {
    "num_hidden_layers": 61,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "torch_dtype": "bfloat16",
    "num_nextn_predict_layers": 1,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
FP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}


@pytest.mark.parametrize(
    ("cache_dtype", "expected"),
    [("auto", 70_272), ("bfloat16", 70_272), ("fp8", 35_136), ("fp8_e4m3", 35_136)],
)
def test_bytes_per_token_of_deepseek_r1(cache_dtype: str, expected: int) -> None:
    assert kv_shape(R1, cache_dtype).bytes_per_token == expected


def test_shape_says_what_it_is_made_of() -> None:
    assert kv_shape(R1) == KvShape(layers=61, width=576, value_bytes=2)
    assert kv_shape(R1, draft_layers=1).layers == 62


@pytest.mark.parametrize(
    "quantisation",
    [
        FP4,
        {"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": "FP8"}},
        {
            "quant_method": "modelopt_fp4",
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        },
    ],
)
def test_auto_follows_what_the_checkpoint_says_of_its_cache(quantisation: dict[str, Any]) -> None:
    config = R1 | {"quantization_config": quantisation}
    assert kv_shape(config).bytes_per_token == 35_136
    assert kv_shape(config, "bfloat16").bytes_per_token == 70_272


def test_auto_without_a_word_on_the_cache_is_the_checkpoints_own_type() -> None:
    config = {key: value for key, value in R1.items() if key != "torch_dtype"}
    assert kv_shape(config | {"dtype": "torch.float32"}).value_bytes == 4
    assert kv_shape(R1 | {"quantization_config": {"quant_method": "modelopt"}}).value_bytes == 2


@pytest.mark.parametrize("cache_dtype", ["fp8_ds_mla", "nvfp4", "int8_per_token_head"])
def test_a_layout_that_is_not_known_is_refused(cache_dtype: str) -> None:
    with pytest.raises(InputError, match=cache_dtype):
        kv_shape(R1, cache_dtype)


def test_a_model_without_latent_attention_is_refused() -> None:
    with pytest.raises(InputError, match="latent attention"):
        kv_shape({"num_hidden_layers": 32, "hidden_size": 4096})


def seen_on_an_h200(reported: int) -> bool:
    """Five bf16 layers on one H200; the log printed 91.24 GiB."""
    return check_capacity(
        reported_tokens=reported,
        available_bytes=round(91.24 * GIB),
        bytes_per_token=5 * 1152,
        block_size=64,
        max_model_len=16_384,
        slack_bytes=LOGGED_GIB_SLACK,
    ).agrees


def test_a_real_servers_capacity_agrees() -> None:
    assert seen_on_an_h200(17_008_448)


@pytest.mark.parametrize("wrong", [0, 17_008_448 // 2, 17_008_448 * 2, 17_008_448 - 2_000])
def test_a_capacity_that_does_not_follow_is_found(wrong: int) -> None:
    assert not seen_on_an_h200(wrong)


def test_how_far_off_it_is() -> None:
    def off_by(reported: int) -> int:
        return check_capacity(
            reported_tokens=reported,
            available_bytes=70_272 * 64 * 100,
            bytes_per_token=70_272,
            block_size=64,
            max_model_len=640,
        ).off_by

    assert [off_by(6400), off_by(6398), off_by(6500)] == [0, -1, 100]


@settings(deadline=None)  # a busy host is no failure
@given(
    available=st.integers(0, 200 * GIB),
    block_size=st.sampled_from([16, 32, 64, 128]),
    max_model_len=st.integers(1, 163_840),
    cache_dtype=st.sampled_from(["bfloat16", "fp8"]),
)
def test_what_vllm_computes_always_agrees(
    available: int, block_size: int, max_model_len: int, cache_dtype: str
) -> None:
    """vLLM 0.32: whole blocks, then int(concurrency * length). Before: blocks * block size."""
    each = kv_shape(R1, cache_dtype).bytes_per_token
    blocks = available // (each * block_size)
    concurrency = blocks / -(-max_model_len // block_size)
    for reported in (int(concurrency * max_model_len), blocks * block_size):
        capacity = check_capacity(
            reported_tokens=reported,
            available_bytes=available,
            bytes_per_token=each,
            block_size=block_size,
            max_model_len=max_model_len,
        )
        assert capacity.agrees, capacity


def test_concurrency_of_the_longest_request() -> None:
    tokens = 42 * GIB // 70_272
    assert max_concurrency(tokens, 163_840) == pytest.approx(3.9, abs=0.05)
