"""`python -m reports.calibrate`: from recorded runs to a references file, or a refusal."""

from __future__ import annotations

import tomllib

import pytest
from reports_runs import NAME, SPEEDS, record_run

from acceptance.judging.references import find, load_references
from reports.calibrate import main


@pytest.fixture
def runs(tmp_path):
    """Writes five runs and returns their paths as words; speeds as of the first."""

    def write(prefix: str, factor: float = 1.0, **more):
        folders = [tmp_path / f"{prefix}-{number}" for number in range(5)]
        for number, folder in enumerate(folders):
            record_run(folder, tpot_mean_ms=factor * (20.0 + number / 100), **more)
        return [str(folder) for folder in folders]

    return write


def test_five_runs_make_a_file_that_a_later_run_is_judged_by(runs, tmp_path, capsys):
    file = tmp_path / "site.toml"
    assert main([str(file), *runs("run")]) == 0
    assert "3 limits, 0 advisory" in capsys.readouterr().out

    entries = tomllib.loads(file.read_text())["reference"]
    assert {entry["metric"] for entry in entries} == set(SPEEDS)
    assert entries[0]["source"] == (
        "calibrated: median of runs run-0, run-1, run-2, run-3, run-4; "
        "digest abc, vllm 0.32.0, gpus 8x NVIDIA H200"
    )
    cell = {"workload": "balanced", "batch": 16, "profile": "benchmark", "lane": "full"}
    found = find(load_references([file]), NAME, "tpot_mean_ms", **cell)
    assert found is not None
    assert found.limit().upper == pytest.approx(20.02 * 1.05)


def test_slower_runs_are_refused_and_the_file_is_left_until_a_reason_is_given(
    runs, tmp_path, capsys
):
    file = tmp_path / "site.toml"
    main([str(file), *runs("run")])
    before = file.read_text()
    slower = runs("slow", factor=1.2)
    assert main([str(file), *slower]) == 2
    assert "does not hold between" in capsys.readouterr().err
    assert file.read_text() == before

    assert main([str(file), *slower, "--rebaseline", "new driver"]) == 0
    assert "rebased" in capsys.readouterr().out
    assert "new driver (was between 10.01 and 21.021 u)" in file.read_text()


@pytest.mark.parametrize(
    ("more", "told"), [({"faults": 1}, "CUDA error"), ({"tpot_mean_ms": None}, "")]
)
def test_an_unhealthy_run_is_refused(runs, tmp_path, capsys, more, told):
    last = record_run(tmp_path / "last", **more)
    file = tmp_path / "site.toml"
    assert main([str(file), *runs("run")[1:], str(last)]) == 2
    assert told in capsys.readouterr().err
    assert not file.exists()


def test_a_torn_run_and_too_few_are_refused(runs, tmp_path, capsys):
    file, words = tmp_path / "site.toml", runs("run")
    assert main([str(file), *words[:4]]) == 2
    assert "4 values, needs 5" in capsys.readouterr().err
    assert main([str(file), *words[:4], "--repetitions", "4"]) == 0
    with (tmp_path / "run-3" / "results.jsonl").open("a") as lines:
        lines.write("{")
    assert main([str(file), *words]) == 2
    assert "run-3 is no healthy run" in capsys.readouterr().err
