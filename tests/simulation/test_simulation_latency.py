"""The latency model's roofline reproduces the published tables, and its KV cache the arithmetic."""

from __future__ import annotations

import pytest

from acceptance.simulation.latency import GIB, EngineLoad, Machine, constants

H200_TP = Machine("H200", "fp8", 8, 1)
H200_DP = Machine("H200", "fp8", 1, 8)
B200_TP = Machine("B200", "fp4", 4, 1)
B200_DP = Machine("B200", "fp4", 1, 4)


# ms by batch, pure HBM roofline; context is input + half the output
@pytest.mark.parametrize(
    ("machine", "context", "table"),
    [
        (H200_TP, 8500, {1: 1.31, 16: 9.43, 64: 23.42, 512: 81.40}),
        (H200_TP, 1500, {1: 1.21, 16: 7.79, 64: 16.86, 512: 28.93}),
        (H200_DP, 8500, {1: 4.25, 16: 10.62, 64: 19.38, 512: 28.59}),
        (H200_DP, 1500, {1: 4.14, 16: 10.42, 64: 18.56, 512: 22.03}),
        (B200_TP, 8500, {1: 1.11, 16: 5.89, 64: 13.09, 512: 31.32}),
        (B200_DP, 8500, {1: 2.48, 16: 6.82, 64: 12.67, 512: 18.36}),
    ],
)
def test_decoding_bound(machine: Machine, context: int, table: dict[int, float]) -> None:
    for batch, milliseconds in table.items():
        each = -(-batch // machine.data)
        loads = [EngineLoad(batch, each * context)]  # the busiest rank's cache, everybody's tokens
        assert machine.decode_bound(loads) * 1000 == pytest.approx(milliseconds, rel=0.01)


def test_prefill_bound_of_a_long_prompt() -> None:
    load = [EngineLoad(prefill=8000, squares=8000**2)]
    assert H200_TP.prefill_bound(load) == pytest.approx(0.056, rel=0.02)
    assert B200_TP.prefill_bound(load) == pytest.approx(0.034, rel=0.02)


def test_the_server_is_slower_than_its_bound() -> None:
    for machine in (H200_TP, H200_DP, B200_TP, B200_DP):
        for batch in (1, 16, 512):
            loads = [EngineLoad(batch, batch * 1500.0)]
            assert machine.decode_seconds(loads) > machine.decode_bound(loads)
    assert constants()["server"]["prefill_factor"] > 1


def test_idle_takes_no_time() -> None:
    assert H200_DP.decode_seconds([EngineLoad()] * 8) == 0
    assert H200_DP.prefill_seconds([EngineLoad()] * 8) == 0


@pytest.mark.parametrize(("machine", "size"), [(H200_TP, 70272), (B200_DP, 35136)])
def test_kv_cache(machine: Machine, size: int) -> None:
    assert machine.kv_bytes_per_token == size
    tokens = machine.kv_tokens(64)
    assert tokens % 64 == 0
    assert 0 <= machine.kv_gib() * GIB - tokens * size < 64 * size
    assert machine.kv_tokens(64, 0.01) == pytest.approx(tokens / 100, rel=0.02)
