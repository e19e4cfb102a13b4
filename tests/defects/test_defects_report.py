"""docs/defects.md says what scores.json holds, and no more."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING

import defects_report
import pytest
from defects_catalogue import catalogue
from defects_report import DOCUMENT, ON_VLLM, document, load, write
from defects_scoring import Score, Scored

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(defects_report, "SCORES", tmp_path / "scores.json")
    monkeypatch.setattr(defects_report, "DOCUMENT", tmp_path / "defects.md")
    return tmp_path


def test_the_document_is_made_from_the_scores() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_scores_are_of_entries_and_twins() -> None:
    known = set(catalogue())
    for name in load():
        assert name.removesuffix(ON_VLLM) in known or name.startswith("healthy."), name


def test_what_is_known_to_be_missed_says_so_and_was_missed() -> None:
    scores = load()
    for name, defect in catalogue().items():
        if defect.missed and name in scores:
            # By what its entry expects; another metric may tell it, just so.
            assert scores[name]["scored"] in (Scored.MISSED, Scored.OTHERWISE), name


def test_a_campaign_is_merged_into_what_is_known(elsewhere: Path) -> None:
    write({"only-bos": Score(Scored.MISSED, 5.0)}, ["--quick", "--write"], on_vllm=False)
    write(
        {"only-bos": Score(Scored.DETECTED, 2.04, "test_shape FAIL: says nothing", "REJECTED")},
        ["--only", "only-bos"],
        on_vllm=False,
    )
    missing = f"no weights in {tempfile.gettempdir()}/made-1/model"
    write({"only-bos": Score(Scored.DETECTED, 1.0, missing)}, ["--on-vllm"], on_vllm=True)
    found = json.loads((elsewhere / "scores.json").read_text())
    assert set(found) == {"only-bos", "only-bos@vllm"}
    assert found["only-bos"]["seconds"] == 2.0
    assert found["only-bos@vllm"]["by"] == "no weights in TMP/model"
    assert found["only-bos"]["command"] == "./accept defects --only only-bos"
    text = (elsewhere / "defects.md").read_text()
    assert "test_shape FAIL | detected | 2.0 |" in text
    assert "before real vLLM" in text
    assert "not scored" in text  # the others


def test_a_healthy_twin_that_fell_short_is_told(elsewhere: Path) -> None:
    write({"healthy.proxy.defects-tp": Score(Scored.FALSE_ALARM, 2.0)}, [], on_vllm=False)
    assert "1 false alarm." in (elsewhere / "defects.md").read_text()


def test_a_twin_of_a_configuration_that_is_gone_does_not_count(elsewhere: Path) -> None:
    write({"healthy.gpu.gone": Score(Scored.HEALTHY, 2.0)}, [], on_vllm=False)
    assert "Healthy twins: 0 configurations" in (elsewhere / "defects.md").read_text()
