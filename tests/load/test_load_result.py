"""Reading the tool's JSON: units, missing keys, and zeros that mean nothing was measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from load_fakes import all_failed, tool_json

from acceptance.errors import ObservationError
from acceptance.load.cellrun import CellRun, measured_window
from acceptance.load.goodput import INTERACTIVE, SERVER, goodput
from acceptance.load.measurements import COUNTS, SPEEDS, measurements
from acceptance.load.result import BenchResult, read_result

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, data: dict[str, Any]) -> Path:
    file = path / "result.json"
    file.write_text(json.dumps(data))
    return file


def test_healthy_file_is_read_with_extra_keys_ignored(tmp_path: Path):
    result = read_result(written(tmp_path, tool_json() | {"spec_decode_num_drafts": 3}))
    assert (result.completed, result.failed, result.ttft.p99) == (4, 0, 100.0)
    assert result.good_tpots() == pytest.approx([0.01] * 4)


@pytest.mark.parametrize(
    "key",
    [
        *("completed", "failed", "duration", "total_output_tokens", "output_throughput"),
        *("mean_ttft_ms", "p99_tpot_ms", "median_itl_ms", "p99_e2el_ms"),
        *("input_lens", "output_lens", "ttfts", "errors"),
    ],
)
def test_missing_key_is_named(tmp_path: Path, key: str):
    data = tool_json()
    del data[key]
    with pytest.raises(ObservationError) as caught:
        read_result(written(tmp_path, data))
    assert key in caught.value.happened


def test_latencies_of_versions_that_do_not_write_them(tmp_path: Path):
    data = tool_json()
    del data["latencies"], data["start_times"], data["queue_times"]
    assert read_result(written(tmp_path, data)).latencies == pytest.approx([0.17] * 4)


def test_absent_half_written_and_contradicting_files_are_refused(tmp_path: Path):
    with pytest.raises(ObservationError, match="without writing"):
        read_result(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"completed": 4, "fail')
    with pytest.raises(ObservationError, match="not JSON"):
        read_result(tmp_path / "half.json")
    with pytest.raises(ObservationError, match="cannot be read"):
        read_result(written(tmp_path, []))  # type: ignore[arg-type]
    with pytest.raises(ObservationError, match="contradicts"):
        read_result(written(tmp_path, tool_json() | {"ttfts": [0.1]}))
    with pytest.raises(ObservationError, match="contradicts"):
        read_result(written(tmp_path, tool_json() | {"duration": 0.0}))


def test_measurements_carry_names_units_and_samples(healthy: CellRun):
    found = measurements([healthy])
    latencies = {
        f"{latency}_{statistic}_ms"
        for latency in ("ttft", "tpot", "itl", "e2el")
        for statistic in ("mean", "median", "p99")
    }
    assert set(found) == {*COUNTS, *SPEEDS, *latencies, "goodput_server", "goodput_interactive"}
    values = {name: (m.value, m.unit) for name, m in found.items()}
    assert values["successful_requests"] == (4, "requests")
    assert values["generated_tokens"] == (32, "tokens")
    assert values["output_throughput"] == (64.0, "tok/s")
    assert values["ttft_mean_ms"] == (100.0, "ms")
    assert values["tpot_p99_ms"] == (10.0, "ms")
    assert values["goodput_server"] == (8.0, "req/s")
    assert found["tpot_mean_ms"].samples == pytest.approx([10.0] * 4)
    assert found["ttft_mean_ms"].samples == pytest.approx([100.0] * 4)
    assert found["itl_mean_ms"].samples == ()
    for measurement in found.values():
        assert measurement.broken == ()
        assert measurement.window == healthy.window
        assert measurement.evidence["workload"] == "balanced"
        assert measurement.evidence["batch"] == 16
        assert measurement.evidence["seed"] == 7


def test_zeros_of_an_all_failed_run_are_no_values(healthy: CellRun):
    result = BenchResult.model_validate(all_failed())
    found = measurements([healthy.model_copy(update={"result": result})])
    counts = {name: found.pop(name).value for name in COUNTS}
    assert counts == {"successful_requests": 0, "input_tokens": 0, "generated_tokens": 0}
    assert {measurement.value for measurement in found.values()} == {None}
    assert all(measurement.broken for measurement in found.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_nan_infinity_and_zero_latency_are_no_values(healthy: CellRun, value: float):
    # One output token each: the tool has no TPOT and writes 0.
    result = BenchResult.model_validate(tool_json() | {"mean_tpot_ms": value})
    found = measurements([healthy.model_copy(update={"result": result})])
    assert found["tpot_mean_ms"].value is None
    assert found["ttft_mean_ms"].value == 100.0


def test_goodput_counts_requests_within_both_limits():
    data = tool_json(osl=11) | {
        "ttfts": [0.1, 1.6, 2.1, 0.1],
        "latencies": [0.2, 1.7, 2.2, 1.0],  # TPOT 10, 10, 10 and 90 ms
        "duration": 2.0,
    }
    result = BenchResult.model_validate(data)
    assert goodput(result, SERVER) == 1.0  # the first two
    assert goodput(result, INTERACTIVE) == 0.5


def test_failed_requests_are_in_no_sample():
    data = tool_json() | {"output_lens": [8, 0, 8, 8], "ttfts": [0.1, 0.0, 0.1, 0.1]}
    result = BenchResult.model_validate(data)
    assert result.good_ttfts() == (0.1, 0.1, 0.1)
    assert len(result.good_tpots()) == 3


def test_window_is_that_of_the_measured_requests():
    result = BenchResult.model_validate(tool_json())  # first sent at 1000.0, 0.5 s long
    window = measured_window(result, started=5990.0, ended=6002.0, offset=5000.0)
    assert (window.start, window.end) == (6000.0, 6000.5)
    # A clock that cannot be placed within the client's life is not believed.
    window = measured_window(result, started=5990.0, ended=6002.0, offset=0.0)
    assert (window.start, window.end) == (5990.0, 6002.0)
