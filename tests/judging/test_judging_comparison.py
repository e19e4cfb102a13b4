"""Comparison of runs: direction, tolerance, order, and what came and went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.judging.comparison import Change, Comparison, compare
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Broken, Kind, Limit, Measurement
from acceptance.judging.metrics import METRICS, SPEEDS
from acceptance.judging.observed import Observed
from acceptance.load.measurements import LATENCIES, STATISTICS
from acceptance.load.measurements import SPEEDS as MEASURED_SPEEDS

CELL = {"workload": "balanced", "batch": 16}
BAD = (Broken(rule="cached", evidence="prefix cache hits"),)


def saw(metric: str, value: object, run: str = "a", **more) -> Observed:
    broken, limit = more.pop("broken", ()), more.pop("limit", None)
    evidence = more.pop("evidence", {})
    judgement = judge(
        Measurement(name=metric, value=value, broken=broken, evidence=evidence),
        limit,
        required=more.pop("required", True),
    )
    known = {"deployment": "d", "check": "test_x[balanced-b16]", "conditions": CELL}
    return Observed(run=run, judgement=judgement, **{**known, **more})


def group(metric: str, *values: object, **more) -> list[Observed]:
    return [saw(metric, value, f"r{place}", **more) for place, value in enumerate(values)]


def only(comparison: Comparison):
    (line,) = comparison.lines
    return line


@pytest.mark.parametrize(
    ("metric", "factor", "change"),
    [
        ("output_throughput", 0.8, Change.REGRESSED),
        ("output_throughput", 1.2, Change.IMPROVED),
        ("output_throughput", 0.96, Change.SAME),
        ("tpot_mean_ms", 1.2, Change.REGRESSED),
        ("tpot_mean_ms", 0.8, Change.IMPROVED),
        ("tpot_mean_ms", 1.04, Change.SAME),
        ("ttft_median_ms", 1.3, Change.SAME),
        ("ttft_median_ms", 1.7, Change.REGRESSED),
        ("ttft_p99_ms", 5.0, Change.SHOWN),
        ("itl_median_ms", 2.0, Change.SHOWN),
        ("something_else", 2.0, Change.SHOWN),
        ("kv_cache_size_tokens", 0.9, Change.REGRESSED),
    ],
)
def test_direction_and_tolerance_of_each_metric(metric, factor, change):
    line = only(compare([saw(metric, 100.0)], [saw(metric, 100.0 * factor, "b")]))
    assert line.change is change
    assert line.ratio == pytest.approx(factor)
    assert (line.before, line.after) == (100.0, pytest.approx(100.0 * factor))


def test_each_gpu_is_compared_with_itself():
    """By its number: the UUID is another on another host. Only the last was looked at once."""

    def gpus(run: str, host: str, *free: float) -> list[Observed]:
        named = ({"gpu": f"GPU {n} (NVIDIA H200, GPU-{host}{n})"} for n in range(len(free)))
        return [
            saw("kv_cache_size_tokens", value, run, evidence=evidence)
            for value, evidence in zip(free, named, strict=True)
        ]

    lines = compare(gpus("a", "x", 100, 100, 100), gpus("b", "y", 100, 80, 100)).lines
    assert [line.change for line in lines] == [Change.REGRESSED, Change.SAME, Change.SAME]
    assert lines[0].where.endswith("kv_cache_size_tokens GPU 1")


def test_what_is_not_required_is_shown_and_never_a_regression():
    slow = [saw("tpot_mean_ms", 200.0, "b", required=False)]
    line = only(compare([saw("tpot_mean_ms", 100.0, required=False)], slow))
    assert line.change is Change.SHOWN
    assert line.worse == pytest.approx(1.0)


def test_every_speed_that_is_measured_has_a_declared_direction():
    latencies = {f"{name}_{statistic}_ms" for name in LATENCIES for statistic in STATISTICS}
    assert latencies | set(MEASURED_SPEEDS) == set(SPEEDS)
    for name in SPEEDS:
        assert METRICS[name].higher is name.endswith("throughput")


def test_runs_that_spread_are_given_more_room_and_the_spread_is_shown():
    base = group("tpot_mean_ms", 100.0, 106.0, 94.0, 103.0, 97.0)
    line = only(compare(base, group("tpot_mean_ms", 107.0, 108.0)))
    assert line.change is Change.SAME
    assert line.tolerance is not None
    assert line.tolerance > 0.075
    assert line.spread == (pytest.approx(0.0474, abs=1e-3), pytest.approx(0.0066, abs=1e-3))
    steady = group("tpot_mean_ms", 100.0, 100.1, 99.9)
    assert only(compare(steady, group("tpot_mean_ms", 107.0))).change is Change.REGRESSED


def test_worst_comes_first_and_what_is_the_same_last():
    names = ("tpot_mean_ms", "tpot_median_ms", "output_throughput", "ttft_mean_ms")
    base = [saw(name, 100.0) for name in names]
    new = [saw(n, v, "b") for n, v in zip(names, (120.0, 150.0, 130.0, 100.0), strict=True)]
    compared = compare(base, new)
    told = [(line.metric, line.change) for line in compared.lines]
    assert told == [
        ("tpot_median_ms", Change.REGRESSED),
        ("tpot_mean_ms", Change.REGRESSED),
        ("output_throughput", Change.IMPROVED),
        ("ttft_mean_ms", Change.SAME),
    ]
    assert compared.regressed
    assert compared.whole


def test_what_vanished_and_appeared_is_named():
    gone, come = saw("tpot_mean_ms", 1.0), saw("ttft_mean_ms", 1.0, "b")
    both = compare([gone], [come])
    assert [line.change for line in both.lines] == [Change.VANISHED, Change.APPEARED]
    assert both.lines[0].where == "d balanced-b16 tpot_mean_ms"
    assert not both.regressed
    assert not both.whole
    assert not compare([], []).whole


def test_an_invalid_value_is_not_compared_and_not_forgotten():
    valid, invalid = saw("tpot_mean_ms", 20.0), saw("tpot_mean_ms", 5.0, "b", broken=BAD)
    line = only(compare([valid], [invalid]))
    assert line.change is Change.VANISHED
    assert "prefix cache hits" in line.said
    assert line.after is None
    assert only(compare([invalid], [valid])).change is Change.APPEARED


CEILING = Limit(kind=Kind.CEILING, upper=10.0, source="s")
SAID = Limit(kind=Kind.EXPECTED, expected="yes", source="s")


def test_a_check_that_held_and_now_fails_broke_whatever_it_measures():
    held, fails = saw("answer", "yes", limit=SAID), saw("answer", "no", "b", limit=SAID)
    line = only(compare([held], [fails]))
    assert line.change is Change.BROKE
    assert "FAIL in b" in line.said
    assert only(compare([fails], [fails.model_copy(update={"run": "c"})])).change is Change.SAME

    near = saw("tpot_mean_ms", 9.9, limit=CEILING), saw("tpot_mean_ms", 10.1, "b", limit=CEILING)
    assert only(compare([near[0]], [near[1]])).change is Change.BROKE
    optional = saw("answer", "no", "b", limit=SAID, required=False)
    assert only(compare([held], [optional])).change is Change.SAME


def test_a_retry_counts_and_its_first_attempt_does_not():
    base = [saw("tpot_mean_ms", 20.0)]
    first = saw("tpot_mean_ms", 2.0, "b", broken=BAD)
    second = saw("tpot_mean_ms", 20.2, "b", attempt=2)
    assert only(compare(base, [first, second])).change is Change.SAME

    held = saw("tpot_mean_ms", 9.0, limit=CEILING)
    first = saw("tpot_mean_ms", 2.0, "b", broken=BAD, limit=CEILING)
    second = saw("tpot_mean_ms", 9.0, "b", attempt=2, limit=CEILING)
    assert only(compare([held], [first, second])).change is Change.SAME
    assert only(compare([held], [first])).change is Change.BROKE

    again = saw("tpot_mean_ms", 9.1, "b")
    assert only(compare(base, [saw("tpot_mean_ms", 30.0, "b"), again])).after == 9.1


def test_a_fall_beyond_all_spread_is_a_regression_although_no_share_exceeds_one():
    wild = group("output_throughput", 100.0, 300.0, 20.0, 500.0, 60.0)
    line = only(compare(wild, [saw("output_throughput", 5.0, "b")]))
    assert line.tolerance is not None
    assert line.tolerance > 1
    assert line.change is Change.REGRESSED
    assert only(compare(wild, [saw("output_throughput", 50.0, "b")])).change is Change.SAME


def test_other_software_and_hardware_are_told_once():
    def on(vllm: str, run: str) -> list[Observed]:
        identity = {"vllm": vllm, "gpus": "8x H200"}
        return [saw("tpot_mean_ms", 1.0, run, deployment=name, identity=identity) for name in "xy"]

    compared = compare(on("0.31.0", "a"), on("0.32.0", "b"))
    assert compared.differs == ("x, y: vllm: 0.31.0 -> 0.32.0",)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (0.0, 0.0, Change.SAME),
        (0.0, 5.0, Change.SHOWN),
        (5.0, 0.0, Change.REGRESSED),
        ("yes", "yes", Change.SAME),
    ],
)
def test_nothing_is_divided_by_zero(before, after, change):
    compared = compare([saw("output_throughput", before)], [saw("output_throughput", after, "b")])
    assert only(compared).change is change


values = st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=5)


@given(values, values, st.sampled_from(sorted(METRICS)))
def test_swapping_sides_never_makes_two_regressions(one, other, metric):
    forth = only(compare(group(metric, *one), group(metric, *other)))
    back = only(compare(group(metric, *other), group(metric, *one)))
    assert not (forth.change is Change.REGRESSED and back.change is Change.REGRESSED)
    assert forth.tolerance == pytest.approx(back.tolerance)
    assert only(compare(group(metric, *one), group(metric, *one))).change is Change.SAME
