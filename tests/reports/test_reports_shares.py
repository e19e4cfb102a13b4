"""What each engine generated, as the report shows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from reports_matrix import HOSTILE, make_run

from acceptance.load.workloads import Tier
from reports.reading import Results
from reports.schema import JudgementRecord
from reports.shares import Shares, shares, tokens_of
from reports.summary import render_page

if TYPE_CHECKING:
    from pathlib import Path


def cell(name: str, tokens: object, requests: int = 4, deployment: str = "dp") -> Any:
    return SimpleNamespace(
        deployment=deployment, cell=name, requests=requests, engine_tokens=tokens
    )


def test_shares_are_of_all_cells_and_the_least_of_those_that_asked_every_engine() -> None:
    (told,) = shares(
        [
            cell("even", {"0": 100.0, "1": 100.0}),
            cell("lame", {"0": 190.0, "1": 10.0}),
            cell("single", {"0": 50.0, "1": 0.0}, requests=1),
            cell("other", {"0": 100.0}, deployment="tp"),
            cell("nothing", {"0": 0, "1": 0}, deployment="idle"),
            cell("older record", None, deployment="dp"),
        ]
    )
    assert isinstance(told, Shares)
    assert (told.deployment, told.cells, told.fair) == ("dp", 3, 0.5)
    zero, one = told.engines
    assert (zero.engine, zero.tokens, zero.bar) == ("0", 340, 1)
    assert (one.tokens, one.bar) == (110, pytest.approx(110 / 340))
    assert zero.share + one.share == pytest.approx(1)
    assert (zero.least, zero.cell) == (0.5, "even")
    assert (one.least, one.cell) == (0.05, "lame")


def test_engines_are_in_the_order_of_their_numbers_at_each_address() -> None:
    names = ["10@b:1", "2@b:1", "0@a:1", "10@a:1", "x"]
    (told,) = shares([cell("c", dict.fromkeys(names, 1.0), requests=1)])
    assert [one.engine for one in told.engines] == ["x", "0@a:1", "10@a:1", "2@b:1", "10@b:1"]
    assert {(one.least, one.cell) for one in told.engines} == {(None, "")}


@pytest.mark.parametrize(
    "told", [None, [1], {"0": "1"}, {"0": 1, "1": None}, {"0": float("nan")}, {"0": -1.0}]
)
def test_what_is_no_count_is_none(told: object) -> None:
    assert tokens_of(told) == {}


def test_the_report_shows_every_engine_and_spells_out_what_they_are_called(tmp_path: Path) -> None:
    made = make_run(tmp_path, "fp4-4xb200-dp-ep", tier=Tier.SMOKE, checks=1)
    page = render_page(Results(tuple(made.records)))
    assert "Tokens of each engine" in page
    assert page.count("25.0 %</td>") == 8  # four engines: of all tokens, and of the least cell
    evil = {"0": 1.0, f"1@{HOSTILE}": 3.0}
    for record in made.records:
        if isinstance(record, JudgementRecord):
            record.judgement.measurement.evidence["engine_tokens"] = evil
    page = render_page(Results(tuple(made.records)))
    assert "75.0 %</td>" in page
    assert '<td class="count bad">' not in page
    assert "<script>window.broken" not in page
    assert "\\u202e" in page or "&lt;script" in page


def test_one_engine_has_nothing_to_share(tmp_path: Path) -> None:
    made = make_run(tmp_path, "fp8-8xh200-tp-ep", tier=Tier.SMOKE, checks=1)
    assert "Tokens of each engine" not in render_page(Results(tuple(made.records)))
