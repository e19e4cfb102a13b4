"""Public figures of other engines: shipped as generated, advisory, found for the cells they fit."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.judging.judge import judge
from acceptance.judging.judgement import Kind, Measurement, Outcome
from acceptance.judging.reference import Reference
from acceptance.judging.references import SHIPPED, find, find_advisory, load_references
from acceptance.judging.tomlout import reference_table, toml_text

TESTS = Path(__file__).parents[1]
CSV = TESTS / "data" / "inferencex_dsr1_single_node.csv"
H200 = {"lane": "full", "precision": "fp8", "layout": "tp8+ep", "profile": "benchmark"}


@pytest.fixture(scope="module")
def tool():
    path = TESTS / "tools" / "inferencex_references.py"
    spec = importlib.util.spec_from_file_location("inferencex_references", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shipped_file_is_what_the_tool_makes(tool, capsys):
    assert tool.main([str(CSV)]) == 0
    assert capsys.readouterr().out == (SHIPPED / "inferencex.toml").read_text()


def test_no_speculation_no_stalled_run_and_the_fastest_of_each_cell(tool):
    with CSV.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    row = {**rows[0], "conc": "16", "latest_ttft_p99_ms": "900"}
    slower = {**row, "latest_out_tok_s_total": "1.0"}
    stalled = {**row, "latest_out_tok_s_total": "9e9", "latest_ttft_p99_ms": "60001"}
    mtp = {**row, "latest_out_tok_s_total": "9e9", "spec": "mtp"}
    other = {**row, "latest_out_tok_s_total": "9e9", "conc": "8"}
    made = tool.entries([slower, row, stalled, mtp, other])
    assert [entry["metric"] for entry in made] == ["tpot_median_ms", "output_throughput"]
    assert made[1]["floor"] == float(row["latest_out_tok_s_total"])


def test_anchors_are_advisory_and_name_engine_run_and_date():
    anchors = [r for r in load_references() if r.file in ("inferencex.toml", "sglang.toml")]
    assert len(anchors) > 50
    for anchor in anchors:
        assert anchor.advisory
        assert "not vLLM" in anchor.source
        assert anchor.conditions["lane"] == "full"
    for anchor in (a for a in anchors if a.file == "inferencex.toml"):
        assert "https://github.com/SemiAnalysisAI/InferenceX/actions/runs/" in anchor.source
        assert anchor.date is not None


def test_a_cell_shows_its_anchor_and_stays_ungated():
    cell = {**H200, "workload": "balanced", "batch": 64}
    found = find(load_references(), "fp8-8xh200-tp-ep", "tpot_median_ms", **cell)
    assert found is not None
    assert found.limit().upper == 30.52
    measured = Measurement(name="tpot_median_ms", value=45.78, unit="ms")
    judged = judge(measured, found)
    assert judged.outcome is Outcome.UNGATED
    assert judged.margin == pytest.approx(-0.5)


@pytest.mark.parametrize("other", [{"layout": "dp8+ep"}, {"precision": "fp4"}, {"lane": "slice"}])
def test_an_anchor_speaks_of_no_other_hardware_or_layout(other):
    cell = {**H200, "workload": "balanced", "batch": 64, **other}
    assert find(load_references(), "fp8-8xh200-tp-ep", "tpot_median_ms", **cell) is None


def test_the_recipe_gates_where_it_speaks_and_anchors_stand_beside_it():
    cell = {**H200, "precision": "fp4", "workload": "prompt-heavy", "batch": 1}
    found = find(load_references(), "fp4-8xb200-tp-ep", "output_throughput", **cell)
    assert found is not None
    assert found.reference.file == "recipe.toml"
    beside = find_advisory(load_references(), "fp4-8xb200-tp-ep", "output_throughput", **cell)
    assert [match.limit().lower for match in beside] == [159.6]


plain = (
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.dates(min_value=datetime.date(1, 1, 1))
)
table = st.dictionaries(st.text(), plain | st.dictionaries(st.text(), plain, max_size=3))


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"])), st.lists(table, max_size=4))
def test_what_is_written_is_what_is_read(header, entries):
    text = toml_text(header, {"reference": entries})
    assert tomllib.loads(text).get("reference", []) == entries


def test_a_reference_survives_being_written():
    made = Reference(
        deployment="a-*",
        metric="tpot_mean_ms",
        workload="balanced",
        batch=16,
        baseline=20.0,
        lower=0.5,
        upper=0.05,
        unit="ms",
        conditions={"profile": "benchmark"},
        source='says "it"\n',
        date=datetime.date(2026, 1, 2),
        spread=0.01,
        repetitions=5,
        reason="moved",
    )
    read = tomllib.loads(toml_text("", {"reference": [reference_table(made)]}))["reference"]
    assert Reference.model_validate(read[0]) == made
    assert made.kind is Kind.BASELINE
    with pytest.raises(TypeError):
        toml_text("", {"reference": [{"x": [1]}]})
