"""`python -m reports.compare` on recorded runs: what it prints and its exit status."""

from __future__ import annotations

import pytest
from reports_command import called
from reports_runs import NAME, SPEEDS, record_run

from reports.compare import main, markdown


@pytest.fixture
def record(tmp_path):
    """Writes a run of one cell; see record_run."""

    def write(name: str, **more):
        return record_run(tmp_path / name, **more)

    return write


def test_equal_runs_exit_zero_and_show_every_gating_speed(record, capsys):
    assert main([str(record("old")), str(record("new"))]) == 0
    told = capsys.readouterr().out
    for word in ("base old", "new  new", "node-1", "vllm 0.32.0", "suite 0123456789ab", "1.000"):
        assert word in told
    assert all(metric in told for metric in SPEEDS)
    assert "4 same" in told
    assert "differs" not in told


def test_a_slower_server_exits_one_and_is_told_first(record, capsys):
    slow = record("slow", vllm="0.33.0", tpot_mean_ms=24.0, output_throughput=667.0)
    assert main([str(record("old")), str(slow), "--show", "changes"]) == 1
    told = capsys.readouterr().out
    assert told.index("regressed") < told.index("2 same")
    assert "+20.0 %" in told
    assert "1.200" in told
    assert "0.834" in told
    assert "ttft_median_ms" not in told
    assert f"differs: {NAME}: vllm: 0.32.0 -> 0.33.0" in told
    assert "2 regressed, 2 same" in told


def test_several_runs_on_a_side_have_a_spread(record, capsys):
    runs = [record(f"run-{n}", tpot_mean_ms=20.0 + n / 10) for n in range(4)]
    assert main([*map(str, runs), "--base", "2"]) == 0
    told = capsys.readouterr().out
    assert "base run-1" in told
    assert "new  run-2" in told
    assert "0.4 % / 0.3 %" in told


@pytest.mark.parametrize(
    ("new", "told"),
    [({"tpot_mean_ms": None}, "not in the new runs"), ({"faults": 1}, "CUDA error")],
)
def test_what_cannot_be_compared_exits_three(record, capsys, new, told):
    assert main([str(record("old")), str(record("new", **new))]) == 3
    assert told in capsys.readouterr().out


def test_a_torn_line_exits_three(record, capsys):
    torn = record("new")
    with (torn / "results.jsonl").open("a") as file:
        file.write('{"type": "judg')
    assert main([str(record("old")), str(torn)]) == 3
    assert "torn" in capsys.readouterr().out


def test_a_run_that_is_not_there_exits_two(record, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "nowhere"):
        assert main([str(record("old")), str(tmp_path / missing)]) == 2
    assert main([str(record("old"))]) == 2
    assert main([str(record("old")), str(record("new")), "--base", "2"]) == 2
    assert "holds no judgements" in capsys.readouterr().err


def test_markdown_is_a_table_that_foreign_text_cannot_break(record, capsys):
    assert main([str(record("old")), str(record("new", tpot_mean_ms=30.0)), "--markdown"]) == 1
    told = capsys.readouterr().out
    rows = [row for row in told.splitlines() if row.startswith("|")]
    assert rows[0].startswith("| change | what | before")
    assert rows[2].startswith("| regressed | fp8-8xh200-tp-ep balanced-b16 tpot\\_mean\\_ms | 20 |")
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert "- a \\| b &lt;i> c" in markdown([], ["a | b <i>\nc"])


def test_runs_of_one_name_are_told_apart(record, capsys):
    one = record("a/run")
    assert main([str(one), str(record("b/run"))]) == 0
    assert main([str(one), str(one)]) == 0
    assert "run#2" in capsys.readouterr().out


def test_command_line(record):
    done = called("reports.compare", record("a"), record("b"))
    assert done.returncode == 0, done.stderr
    assert "tpot_mean_ms" in done.stdout
