"""Charts as text: what they say of themselves, and what becomes of foreign names in them."""

from __future__ import annotations

import sys

import pytest
from reports_matrix import make_run

from acceptance.deployments.schema import Lane
from reports.charts.book import draw_charts
from reports.charts.sheet import Sheet, ticks
from reports.charts.startup import startup
from reports.reading import Results, read_results
from reports.schema import RunRecord, SelectedDeployment, ServerRecord
from reports.starts import starts
from reports.view import draw


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, [0]), (7, [0, 1, 2, 3, 4, 5, 6, 7]), (0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]), (4100, 5)],
)
def test_ticks_are_round_and_few(seconds, told):
    made = ticks(seconds)
    assert len(made) <= 9
    assert made[-1] <= seconds
    if isinstance(told, list):
        assert made == pytest.approx(told)
    else:
        assert len(made) == told


def started(**phases: float) -> Results:
    run = RunRecord(
        time=1.0,
        suite_version="0.1",
        deployments=(SelectedDeployment(name="d", digest="1", lane=Lane.FULL),),
    )
    ready = ServerRecord(time=9.0, deployment="<b>d</b>", outcome="ready", phases=phases)
    return Results((run, ready))


def test_a_phase_has_its_name_where_there_is_room():
    made = startup(starts(started(loading=60.0, capturing=1.0, profiling=0.0).records))
    assert made is not None
    assert ">loading<" in made.svg
    assert ">capturing<" not in made.svg
    assert "capturing 1.0 s" in made.about
    assert "profiling" not in made.about
    assert "&lt;b&gt;d" in made.svg
    assert "<b>" not in made.svg


def test_the_last_height_ends_where_its_time_does():
    drawn = Sheet("s", 100, 20, left=0, right=100, seconds=10)
    drawn.area([0, 5, 10], [10, 4, 4], 20, "red")
    assert 'd="M0.0 20.0H0.0V10.0H50.0V4.0H100.0V4.0V20.0Z"' in drawn.parts[0]


def test_without_matplotlib_the_rest_is_drawn(tmp_path, monkeypatch):
    monkeypatch.delenv("ACCEPTANCE_CHARTS", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder = make_run(tmp_path, "fp4-4xb200-tp-ep", tier="smoke", checks=1).folder
    book = draw_charts(draw(read_results(folder), folder))
    assert "charts are missing" in book.problem
    assert (len(book.memory), len(book.startup)) == (1, 1)
    assert book.throughput == []


def test_every_point_is_a_link_with_a_name(tmp_path, monkeypatch):
    monkeypatch.delenv("ACCEPTANCE_CHARTS", raising=False)
    folder = make_run(tmp_path, "fp4-4xb200-tp-ep", tier="smoke", checks=1).folder
    page = draw(read_results(folder), folder)
    book = draw_charts(page)
    assert book.problem == ""
    for drawn in (*book.throughput, *book.latency):
        assert 'role="group"' in drawn.svg
        assert "mark:" not in drawn.svg
        assert "#0000" not in drawn.svg  # every stand-in has become one of the page's colours
    for cell in page.cells:
        links = [d for d in (*book.throughput, *book.latency) if f'href="#{cell.slug}"' in d.svg]
        assert len(links) == 4  # throughput of its workload, and three latencies
