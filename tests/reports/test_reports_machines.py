"""What machines read of a run: results.jsonl by its schema, the job summary, Prometheus's text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from reports_matrix import SIMULATED, make_run
from reports_runs import record_run
from reports_schema import problems

from reports.jobsummary import summary, write_summary
from reports.metricsfile import write_metrics
from reports.reading import Results, read_results
from reports.schema import EndRecord, RunRecord

EVIDENCE = sorted((Path(__file__).parents[2] / "docs" / "evidence").rglob("*results.jsonl"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run of the full lane in which a cell is slow, one is invalid and a server died."""
    ill = {"balanced-b16": "slow", "prompt-heavy-b1": "cached"}
    names = "fp8-8xh200-tp-ep", "fp4-4xb200-dp-ep"
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder, *names, tier="gate", ill=ill, dead=True).folder


@pytest.mark.parametrize("file", EVIDENCE, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_evidence_fits_the_schema(file):
    assert problems(file.read_text().splitlines()) == []


def test_lines_of_the_full_lane_fit_the_schema(full):
    assert problems((full / "results.jsonl").read_text().splitlines()) == []


def test_lines_of_the_simulated_lane_fit_the_schema(tmp_path):
    made = make_run(tmp_path, *SIMULATED[:1], tier="smoke")
    assert problems((made.folder / "results.jsonl").read_text().splitlines()) == []


def test_schema_refuses_what_the_reader_refuses(full):
    lines = (full / "results.jsonl").read_text().splitlines()
    for change in ({"schema": 2}, {"type": "dance"}, {"surprise": 1}):
        assert problems([json.dumps(json.loads(lines[0]) | change)])


def test_summary_tells_verdict_reasons_and_counts(full):
    told = summary(read_results(full), full)
    assert told.startswith("## REJECTED (full lane)")
    for part in ("| fp8-8xh200-tp-ep | REJECTED |", "CUDA out of memory", "prefix-cache-hits"):
        assert part in told.replace("\\_", "_")
    assert "Digest of results.jsonl: `" in told


def test_summary_of_a_simulation_accepts_nothing(tmp_path):
    made = make_run(tmp_path, *SIMULATED[:1], tier="smoke")
    told = summary(read_results(made.folder))
    assert "SIMULATED (simulated lane)" in told
    assert "ACCEPTED" not in told


def test_foreign_text_cannot_leave_its_cell():
    run = RunRecord(
        time=1.0, suite_version="1", host="a|b\n## ACCEPTED <img>", narrowed=("-k `x`",)
    )
    end = EndRecord(time=2.0, finished=True, exit_status=0, word="INCOMPLETE")
    told = summary(Results((run, end)))
    assert "\n## ACCEPTED" not in told
    assert "<img>" not in told
    assert "a\\|b" in told


def test_summary_goes_to_the_file_or_is_added_to_the_jobs(full, tmp_path, monkeypatch):
    results = read_results(full)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert write_summary(None, results, full) is None
    asked = tmp_path / "deep" / "s.md"
    assert write_summary(asked, results, full) == asked
    jobs = tmp_path / "job.md"
    jobs.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(jobs))
    write_summary(None, results, full)
    assert jobs.read_text() == "before\n" + asked.read_text()


def test_metrics_hold_the_key_figures(full):
    text = write_metrics(full, read_results(full)).read_text()
    found = {
        (sample.name, *(v for _, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["acceptance_verdict", "full", "REJECTED"] == 1
    assert found["acceptance_held", "full"] == 0
    assert found["acceptance_startup_seconds", "fp8-8xh200-tp-ep", "loading", "benchmark"] == 410
    cells = {key for key in found if key[0] == "acceptance_cell"}
    assert len({key[1:] for key in cells}) == len(cells)
    invalid = [key for key in cells if "prompt-heavy" in key and "1" in key]
    assert invalid == []
    assert any("tpot_median_ms" in key and "decode-heavy" in key for key in cells)


def test_metrics_of_a_run_without_anything(tmp_path):
    text = write_metrics(tmp_path, Results()).read_text()
    assert 'acceptance_verdict{lane="",word="INCOMPLETE"} 1.0' in text
    assert write_metrics(tmp_path, read_results(record_run(tmp_path / "r"))).exists()
