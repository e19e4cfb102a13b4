"""--calibrate FILE: whole runs repeated, and references from them or nothing."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from reports_runs import SPEEDS, record_run

from fixtures.calibrating import OWN, calibrate_by_repeating, without

pytest_plugins = ["pytester"]


class Runs:
    """Stands for pytest: records a run where it is told, and ends with the status it is given."""

    def __init__(self, *statuses: int, **more: object) -> None:
        self.statuses, self.more, self.asked = list(statuses), more, []

    def __call__(self, arguments: list[str]) -> int:
        self.asked.append(arguments)
        record_run(Path(arguments[-1].removeprefix("--run-dir=")), **self.more)
        return self.statuses.pop(0)


def test_runs_are_repeated_and_make_the_file(tmp_path, capsys):
    file, runs = tmp_path / "site.toml", Runs(1, 1, 0)
    assert calibrate_by_repeating(file, ["-m", "fp8"], tmp_path / "runs", 3, pytest_run=runs) == 0
    assert [asked[:-1] for asked in runs.asked] == [["-m", "fp8"]] * 3
    assert len({asked[-1] for asked in runs.asked}) == 3
    assert {entry["metric"] for entry in tomllib.loads(file.read_text())["reference"]} == set(
        SPEEDS
    )
    assert "run 3 of 3" in capsys.readouterr().out


def test_an_interrupted_run_ends_the_calibration(tmp_path, capsys):
    file, runs = tmp_path / "site.toml", Runs(0, 2, 0)
    assert calibrate_by_repeating(file, [], tmp_path / "runs", 3, pytest_run=runs) == 2
    assert len(runs.asked) == 2
    assert not file.exists()
    assert "ended with run 2" in capsys.readouterr().err


def test_unhealthy_runs_write_nothing(tmp_path, capsys):
    file, runs = tmp_path / "site.toml", Runs(1, 1, faults=1)
    assert calibrate_by_repeating(file, [], tmp_path / "runs", 2, pytest_run=runs) == 2
    assert not file.exists()
    assert "no healthy run" in capsys.readouterr().err


def test_the_options_of_a_calibration_are_not_passed_on():
    asked = [
        "--calibrate",
        "a.toml",
        "-m",
        "fp4",
        "--run-dir=x",
        "--repetitions",
        "3",
        "--tier=full",
    ]
    assert without(asked, OWN) == ["-m", "fp4", "--tier=full"]


@pytest.mark.parametrize("more", ["--plan", "--repetitions=0"])
def test_what_cannot_be_repeated_is_refused(pytester, more):
    root = Path(__file__).parents[2]
    done = pytester.run(
        sys.executable, "-m", "pytest", f"--rootdir={root}", str(root), "--calibrate=x.toml", more
    )
    assert done.ret == 4
    done.stderr.fnmatch_lines(["*--calibrate repeats whole runs*"])
