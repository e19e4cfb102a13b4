"""Repeats, attempts, and cells whose requests do not all fit at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from load_fakes import CountingServer, FakeTarget, tool_json

from acceptance.judging.judgement import Kind, Limit
from acceptance.load import bench, counters
from acceptance.load.bench import file_name, run_cell
from acceptance.load.capacity import RUNNING, read_capacity
from acceptance.load.engine import ClientLoad, LoadEngine
from acceptance.load.measurements import measurements
from acceptance.load.pace import deadline_seconds, expected_seconds
from acceptance.load.validity import check
from acceptance.load.warmup import WarmRule
from acceptance.load.workloads import REPEATS, make_cell, take

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acceptance.deployments.schema import Deployment
    from acceptance.load.cellrun import CellRun
    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

ONE_WAVE = WarmRule(least=1, most=1)


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "SETTLED_APART", 0.01)


class FakeEngine:
    """Writes the results it is given, one a run, and has the server count them."""

    name = LoadEngine.WORKER

    def __init__(self, server: CountingServer, *results: dict[str, Any]) -> None:
        self.server, self.results = server, list(results)
        self.argv: list[tuple[str, ...]] = []

    def prepare(self, target: Target, cells: Sequence[Cell]) -> None: ...

    def run(
        self,
        target: Target,
        argv: tuple[str, ...],
        log: Path,
        deadline: float,
        check: Callable[[], None],
    ) -> ClientLoad:
        check()
        self.argv.append(argv)
        data = self.results.pop(0)
        folder = argv[argv.index("--result-dir") + 1]
        file = Path(folder) / argv[argv.index("--result-filename") + 1]
        file.write_text(json.dumps(data))
        self.server.generated += data["total_output_tokens"]
        self.server.succeeded += data["completed"]
        return ClientLoad(lag_p99_ms=0.5, lag_max_ms=1.0, cpu_share=0.1)

    def close(self) -> None: ...


def seeds(engine: FakeEngine) -> list[str]:
    return [argv[argv.index("--seed") + 1] for argv in engine.argv]


def test_one_request_is_repeated_and_the_median_is_taken(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    cell = make_cell(target.deployment, "balanced-b1")
    assert cell.repeats == REPEATS[1] == 3
    results = [
        tool_json(1, 100, 100) | {"mean_ttft_ms": ttft, "output_throughput": 7.0}
        for ttft in (100.0, 900.0, 110.0)
    ]
    engine = FakeEngine(counting_server, *results)
    runs = run_cell(target, cell, tmp_path, engine, warm=ONE_WAVE)
    assert [check(run) for run in runs] == [(), (), ()]
    assert len(set(seeds(engine))) == 3
    assert seeds(engine)[0] == str(cell.seed)
    assert len(counting_server.seen) == 2  # one wave, a request for each engine: not repeated
    found = measurements(runs)
    assert found["ttft_mean_ms"].value == 110.0
    assert found["ttft_mean_ms"].evidence["values"] == [100.0, 900.0, 110.0]
    assert found["ttft_mean_ms"].evidence["statistic"] == "median of 3 runs"
    assert len(found["ttft_mean_ms"].samples) == 3
    assert found["output_throughput"].value == 7.0
    assert found["generated_tokens"].value == 100
    names = sorted(path.name for path in (tmp_path / "cells").glob("*.run.json"))
    stem = "rehearsal-dp-ep.balanced-b1"
    assert names == [f"{stem}.repeat2.run.json", f"{stem}.repeat3.run.json", f"{stem}.run.json"]


def test_one_bad_repeat_is_not_hidden_by_the_median(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    cell = make_cell(target.deployment, "balanced-b1")
    short = tool_json(1, 100, 99)
    engine = FakeEngine(counting_server, tool_json(1, 100, 100), short, tool_json(1, 100, 100))
    found = measurements(run_cell(target, cell, tmp_path, engine, warm=ONE_WAVE))
    assert found["generated_tokens"].value == 99
    broken = {rule.rule: rule.evidence for rule in found["tpot_mean_ms"].broken}
    assert set(broken) == {"output-length", "generated-tokens"}
    assert all(evidence.startswith("run 2: ") for evidence in broken.values())


def test_no_two_runs_of_a_cell_have_the_same_prompts_or_files(rehearsal: Deployment):
    cell = make_cell(rehearsal, "balanced-b1")
    all_runs = [(attempt, repeat) for attempt in (1, 2) for repeat in (1, 2, 3)]
    assert len({take(cell, *run).seed for run in all_runs}) == 6
    assert take(cell, 1, 1) == cell
    assert take(cell, 2, 1) == take(cell, 2, 1)
    names = {file_name(cell, *run) for run in all_runs}
    assert len(names) == 6
    assert "rehearsal-dp-ep.balanced-b1.attempt2.repeat3" in names


def test_a_second_attempt_keeps_the_first_one_s_files(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    cell = make_cell(target.deployment, "balanced-b16")
    engine = FakeEngine(counting_server, tool_json(4, 100, 100), tool_json(4, 100, 100))
    for attempt in (1, 2):
        (run,) = run_cell(target, cell, tmp_path, engine, attempt=attempt, warm=ONE_WAVE)
        assert run.attempt == attempt
        assert not check(run)
    assert seeds(engine)[0] != seeds(engine)[1]
    assert len(list((tmp_path / "cells").glob("*.run.json"))) == 2


def measured(target: FakeTarget, server: CountingServer, folder: Path, **more: Any) -> CellRun:
    cell = make_cell(target.deployment, "balanced-b16")
    engine = FakeEngine(server, tool_json(4, 100, 100))
    return run_cell(target, cell, folder, engine, warm=ONE_WAVE, **more)[0]


def test_a_batch_beyond_the_cache_is_queued_with_its_peak(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    counting_server.kv_tokens, counting_server.more = 399, {RUNNING: 2}
    run = measured(target, counting_server, tmp_path)
    assert run.capacity is not None
    assert run.capacity.fits == 2  # one request of 200 tokens on each of two engines
    assert run.queued
    assert run.peak_running == 2
    evidence = measurements([run])["output_throughput"].evidence
    assert (evidence["queued"], evidence["runs_at_once"], evidence["peak_running"]) == (True, 2, 2)


def test_a_batch_that_fits_is_not_queued_and_not_watched(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    counting_server.kv_tokens, counting_server.more = 400, {RUNNING: 4}
    run = measured(target, counting_server, tmp_path)
    assert not run.queued
    assert run.peak_running is None


def test_seats_queue_as_well_as_cache(target: FakeTarget, counting_server: CountingServer):
    counting_server.kv_tokens = 10**6
    options = target.deployment.options.model_copy(update={"max_num_seqs": 1})
    target.deployment = target.deployment.model_copy(update={"options": options})
    found = read_capacity(target, make_cell(target.deployment, "balanced-b16"))
    assert found is not None
    assert (found.seats, found.fits) == (1, 2)


def test_a_server_that_tells_no_capacity_is_not_labelled(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    run = measured(target, counting_server, tmp_path)
    assert run.capacity is None
    assert not run.queued
    assert measurements([run])["ttft_mean_ms"].evidence["runs_at_once"] is None


def test_a_queued_cell_is_not_held_to_the_step_of_its_whole_batch(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    def bounds(*asked: Any) -> dict[str, Limit]:
        limit = Limit(kind=Kind.BOUND, lower=9.0, unit="ms", source="physics")
        return {"tpot_mean_ms": limit, "ttft_mean_ms": limit}

    counting_server.kv_tokens = 399
    assert set(measured(target, counting_server, tmp_path, bounds=bounds).bounds) == {
        "ttft_mean_ms"
    }
    counting_server.kv_tokens = 400
    assert len(measured(target, counting_server, tmp_path, bounds=bounds).bounds) == 2


def test_stages_are_told(target: FakeTarget, counting_server: CountingServer, tmp_path: Path):
    told: list[str] = []
    measured(target, counting_server, tmp_path, tell=told.append)
    assert list(dict.fromkeys(told)) == ["warming up", "measuring"]


def test_a_worker_is_expected_to_cost_less_than_a_command(rehearsal: Deployment):
    cell = make_cell(rehearsal, "balanced-b16")
    assert expected_seconds(rehearsal, cell) < expected_seconds(rehearsal, cell, LoadEngine.CLI)
    assert deadline_seconds(rehearsal, cell) > 5 * expected_seconds(rehearsal, cell)


def test_bounds_are_physics_unless_given() -> None:
    assert run_cell.__kwdefaults__["bounds"] is bench.bounds_for
