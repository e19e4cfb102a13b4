"""The roofline against the published tables, every cell, and what it must never do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.deployments.load import load_deployments, with_options
from acceptance.deployments.schema import Deployment, Gpus, Lane, Precision, Scale
from acceptance.judging.architecture import DEEPSEEK_V3, WEIGHTS
from acceptance.judging.bounds import bounds_for, fraction_of_bound, roofline_of
from acceptance.judging.hardware import GPUS
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Kind, Measurement, Outcome
from acceptance.judging.roofline import Roofline
from acceptance.load.workloads import Tier, cells

H200 = {"model": DEEPSEEK_V3, "weights": WEIGHTS["fp8"], "gpu": GPUS["H200"]}
B200 = {
    **{"model": DEEPSEEK_V3, "weights": WEIGHTS["fp4"], "gpu": GPUS["B200"]},
    **{"kv_bytes": 1.0, "flops": "fp4"},
}
LAYOUTS = {
    "fp8-8xh200-tp-ep": Roofline(**H200, tensor=8),
    "fp8-8xh200-dp-ep": Roofline(**H200, data=8),
    "fp4-4xb200-tp-ep": Roofline(**B200, tensor=4),
    "fp4-4xb200-dp-ep": Roofline(**B200, data=4),
}
LENGTHS = {"prompt-heavy": (8000, 1000), "decode-heavy": (1000, 8000), "balanced": (1000, 1000)}
BATCHES = (1, 16, 32, 64, 128, 256, 512)

EXPERTS = "8.0 30.5 57.4 102.0 163.3 222.4 251.6 255.9 256.0"
FP8_GB = "37.7 95.2 163.9 277.7 434.5 585.6 660.1 671.1 671.3"
FP4_GB = "28.2 60.6 99.2 163.2 251.4 336.3 378.2 384.4 384.5"
# * the batch does not fit the KV cache: the bound of the whole batch does not apply
TPOT_MS = """
fp8-8xh200-tp-ep prompt-heavy 1.31 9.43 15.50 23.42* 33.32* 49.54* 81.40*
fp8-8xh200-tp-ep decode-heavy 1.26 8.61 13.86 20.14* 26.77* 36.42* 55.17*
fp8-8xh200-tp-ep balanced     1.21 7.79 12.22 16.86 20.21 23.31 28.93*
fp8-8xh200-dp-ep prompt-heavy 4.25 10.62 14.95 19.38 22.32 24.60 28.59*
fp8-8xh200-dp-ep decode-heavy 4.19 10.52 14.75 18.97 21.50 22.96 25.31*
fp8-8xh200-dp-ep balanced     4.14 10.42 14.54 18.56 20.68 21.32 22.03
fp4-4xb200-tp-ep prompt-heavy 1.11 5.89 9.24 13.09 16.79 21.76* 31.32*
fp4-4xb200-tp-ep decode-heavy 1.10 5.64 8.75 12.11 14.82 17.83* 23.45*
fp4-4xb200-tp-ep balanced     1.08 5.40 8.26 11.12 12.86 13.89 15.58
fp4-4xb200-dp-ep prompt-heavy 2.48 6.82 9.72 12.67 14.58 15.97 18.36
fp4-4xb200-dp-ep decode-heavy 2.47 6.75 9.60 12.43 14.09 14.98 16.39
fp4-4xb200-dp-ep balanced     2.45 6.69 9.47 12.18 13.60 14.00 14.43
"""
TPOT_CELLS = [
    (row.split()[0], row.split()[1], batch, float(cell.rstrip("*")), not cell.endswith("*"))
    for row in TPOT_MS.strip().splitlines()
    for batch, cell in zip(BATCHES, row.split()[2:], strict=True)
]
# ms for one prompt, then seconds until the last of N; the digits are those that were published
PREFILL = [
    ("fp8-8xh200-tp-ep", 8000, 1, "56", 1e3),
    ("fp8-8xh200-tp-ep", 8000, 16, "0.90", 1),
    ("fp8-8xh200-tp-ep", 8000, 64, "3.6", 1),
    ("fp8-8xh200-tp-ep", 8000, 512, "28.8", 1),
    ("fp8-8xh200-tp-ep", 1000, 1, "5", 1e3),
    ("fp8-8xh200-tp-ep", 1000, 512, "2.5", 1),
    ("fp4-4xb200-tp-ep", 8000, 1, "34", 1e3),
    ("fp4-4xb200-tp-ep", 8000, 16, "0.54", 1),
    ("fp4-4xb200-tp-ep", 8000, 64, "2.2", 1),
    ("fp4-4xb200-tp-ep", 8000, 512, "17.2", 1),
    ("fp4-4xb200-tp-ep", 1000, 1, "2.3", 1e3),
    ("fp4-4xb200-tp-ep", 1000, 512, "1.2", 1),
]
# weights of a rank in GB; KV tokens in millions, and requests of 9000 and of 2000, bf16 / fp8
CAPACITY = [
    ("fp8-8xh200-tp-ep", "85", ("0.52", "1.05"), ("58", "116"), ("261", "523")),
    ("fp8-8xh200-dp-ep", "101", ("2.40", "4.80"), ("266", "532"), ("1198", "2397")),
    ("fp4-4xb200-tp-ep", "98", ("0.84", "1.68"), ("93", "186"), ("418", "837")),
    ("fp4-4xb200-dp-ep", "111", ("2.65", "5.29"), ("294", "588"), ("1323", "2646")),
]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Deployment]:
    return load_deployments()


def printed(value: float, text: str) -> bool:
    """Within 1 % of the printed number, or of what its last digit can tell."""
    decimals = len(text.partition(".")[2])
    return abs(value - float(text)) <= max(0.01 * float(text), 0.5001 * 10**-decimals)


def test_parameters_sum_to_what_was_published():
    assert pytest.approx(671.03e9, rel=1e-4) == DEEPSEEK_V3.total
    assert pytest.approx(35.7e9, rel=1e-3) == DEEPSEEK_V3.active
    assert DEEPSEEK_V3.active + 2 * DEEPSEEK_V3.embedding == pytest.approx(37.55e9, rel=1e-4)
    assert DEEPSEEK_V3.kv_values == 35_136


@pytest.mark.parametrize(
    ("name", "row"), [("fp8-8xh200-tp-ep", FP8_GB), ("fp4-4xb200-tp-ep", FP4_GB)]
)
def test_experts_and_bytes_of_a_step(name, row):
    roofline = LAYOUTS[name]
    batches = (1, 4, 8, 16, 32, 64, 128, 256, 512)
    for batch, experts, gigabytes in zip(batches, EXPERTS.split(), row.split(), strict=True):
        assert roofline.distinct_experts(batch) == pytest.approx(float(experts), rel=0.01)
        assert roofline.machine_bytes(batch) / 1e9 == pytest.approx(float(gigabytes), rel=0.01)


@pytest.mark.parametrize(("name", "workload", "batch", "ms", "fits"), TPOT_CELLS)
def test_tpot_bound_and_whether_it_applies(shipped, name, workload, batch, ms, fits):
    isl, osl = LENGTHS[workload]
    assert LAYOUTS[name].tpot_ms(batch, isl + osl / 2) == pytest.approx(ms, rel=0.01)

    limits = bounds_for(shipped[name], workload, batch, isl, osl)
    assert ("tpot_mean_ms" in limits) is fits
    assert ("tpot_median_ms" in limits) is fits
    if fits:
        assert limits["tpot_mean_ms"].lower == pytest.approx(ms, rel=0.01)
        assert limits["tpot_mean_ms"].kind is Kind.BOUND


@pytest.mark.parametrize(("name", "prompt", "number", "text", "unit"), PREFILL)
def test_prefill_bound(name, prompt, number, text, unit):
    assert printed(number * LAYOUTS[name].prefill_ms(prompt) / 1e3 * unit, text)


@pytest.mark.parametrize(("name", "weights", "tokens", "long", "short"), CAPACITY)
def test_kv_capacity(name, weights, tokens, long, short):
    layout = LAYOUTS[name]
    assert printed(layout.weights_per_rank / 1e9, weights)
    for kv_bytes, held, nine, two in zip((2.0, 1.0), tokens, long, short, strict=True):
        known = {**vars(layout), "kv_bytes": kv_bytes}
        found = Roofline(**known).kv_tokens()
        assert printed(found / 1e6, held)
        assert int(found / 9000) == int(nine)
        assert int(found / 2000) == int(two)


def test_mean_ttft_is_of_the_burst_not_of_its_last():
    one = LAYOUTS["fp8-8xh200-tp-ep"].prefill_ms(8000)
    assert LAYOUTS["fp8-8xh200-tp-ep"].mean_ttft_ms(1, 8000) == one
    assert LAYOUTS["fp8-8xh200-tp-ep"].mean_ttft_ms(16, 8000) == pytest.approx(8.5 * one)


def test_only_hardware_that_is_known_has_bounds(shipped):
    for deployment in shipped.values():
        for cell in cells(deployment, Tier.FULL):
            asked = cell.workload, cell.batch, cell.isl, cell.osl
            limits = bounds_for(deployment, *asked)
            known = deployment.lane is not Lane.REHEARSAL and deployment.layout.pipeline == 1
            known = known and not (deployment.lane is Lane.SLICE and deployment.trained)
            assert bool(limits) is known
            assert all(limit.lower and limit.lower > 0 for limit in limits.values())
    whole = shipped["fp8-8xh200-tp-ep"]
    unknown = whole.model_copy(update={"gpus": Gpus(kind="GB300", count=8)})
    assert bounds_for(unknown, "balanced", 1, 1000, 1000) == {}
    unpacked = roofline_of(whole.model_copy(update={"precision": Precision.FP4}))
    assert unpacked is not None
    assert unpacked.flops == "fp8"


def test_a_slice_is_bound_by_its_layers_and_by_no_belief_about_its_router(shipped):
    made = shipped["slice-fp8-1xh200"]
    site = made.model_copy(update={"model": "site/slice"})
    assert bounds_for(site, "balanced", 16, 1000, 1000) == {}
    five = bounds_for(made, "balanced", 16, 1000, 1000)
    assert bounds_for(site, "balanced", 16, 1000, 1000, layers=5) == five
    eight = bounds_for(made, "balanced", 16, 1000, 1000, layers=8)
    assert five["tpot_mean_ms"].lower < eight["tpot_mean_ms"].lower

    model = DEEPSEEK_V3.with_layers(5)
    spread = Roofline(model=model, weights=WEIGHTS["fp8"], gpu=GPUS["H200"])
    assert five["tpot_mean_ms"].lower < spread.tpot_ms(16, 1500)
    assert DEEPSEEK_V3.with_layers(2).moe_layers == 0
    with pytest.raises(ValueError, match="layers"):
        DEEPSEEK_V3.with_layers(0)


def test_a_simulated_cell_queues_where_the_whole_one_does(shipped):
    for name in LAYOUTS:
        whole = shipped[name]
        update = {"lane": Lane.SIMULATED, "scale": Scale(length=0.01)}
        simulated = whole.model_copy(update=update)
        for one, other in zip(cells(whole, Tier.FULL), cells(simulated, Tier.FULL), strict=True):
            asked = one.workload, one.batch, one.isl, one.osl
            scaled = other.workload, other.batch, other.isl, other.osl
            assert bounds_for(whole, *asked).keys() == bounds_for(simulated, *scaled).keys()


def test_options_that_leave_fewer_running_lift_the_tpot_bound(shipped):
    name = "fp8-8xh200-dp-ep"
    assert "tpot_mean_ms" in bounds_for(shipped[name], "balanced", 64, 1000, 1000)
    few = with_options(shipped[name], ["max_num_seqs=4"])
    assert list(bounds_for(few, "balanced", 64, 1000, 1000)) == ["ttft_mean_ms"]
    small = with_options(shipped[name], ["gpu_memory_utilization=0.75"])
    assert list(bounds_for(small, "balanced", 1, 1000, 1000)) == ["ttft_mean_ms"]
    half = with_options(shipped[name], ["kv_cache_dtype=fp8"])
    assert "tpot_mean_ms" in bounds_for(half, "prompt-heavy", 512, 8000, 1000)


def test_a_value_beyond_physics_is_invalid_and_a_real_one_shows_its_share(shipped):
    bound = bounds_for(shipped["fp8-8xh200-tp-ep"], "prompt-heavy", 1, 8000, 1000)["tpot_mean_ms"]
    impossible = judge(Measurement(name="tpot_mean_ms", value=1.2, unit="ms"), None, bounds=[bound])
    assert impossible.outcome is Outcome.INVALID
    assert "not physically possible" in impossible.reason

    recipe = judge(Measurement(name="tpot_mean_ms", value=15.85, unit="ms"), None, bounds=[bound])
    assert recipe.outcome is Outcome.UNGATED
    assert fraction_of_bound(15.85, bound) == pytest.approx(0.083, abs=0.001)
    assert fraction_of_bound(None, bound) is None
    assert fraction_of_bound(True, bound) is None
    assert fraction_of_bound(0.0, bound) is None


sizes = st.integers(1, 512)


@given(batch=sizes, context=st.integers(1, 100_000), name=st.sampled_from(sorted(LAYOUTS)))
def test_more_work_never_has_a_lower_bound(batch, context, name):
    layout = LAYOUTS[name]
    assert 0 < layout.tpot_ms(batch, context) <= layout.tpot_ms(batch + 1, context)
    assert layout.tpot_ms(batch, context) < layout.tpot_ms(batch, context + 1)
    assert layout.prefill_ms(context) < layout.prefill_ms(context + 1)
    fewest = Roofline(**{**vars(layout), "uniform": False})
    assert fewest.tpot_ms(batch, context) <= layout.tpot_ms(batch, context) * (1 + 1e-12)
