"""All charts of a report. What cannot be drawn is told, and keeps no report from being made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from reports.charts import canvas, speed
from reports.charts.memory import memory
from reports.charts.startup import startup

if TYPE_CHECKING:
    from collections.abc import Callable

    from reports.charts.canvas import Chart
    from reports.view import Page


SWITCH = "ACCEPTANCE_CHARTS"  # of the environment; 0 leaves charts out


@dataclass
class Book:
    """Charts by section. legend: deployment and the number of its colour and marker. engines: of
    published points, with their markers. problem: why charts are missing."""

    throughput: list[Chart] = field(default_factory=list)
    latency: list[Chart] = field(default_factory=list)
    memory: list[Chart] = field(default_factory=list)
    startup: list[Chart] = field(default_factory=list)
    legend: dict[str, int] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def draw_charts(page: Page) -> Book:
    """Every chart that the page has numbers for."""
    book = Book()
    if os.environ.get(SWITCH) == "0":
        book.problem = f"no charts: {SWITCH}=0"
        return book
    for number, timeline in enumerate(page.timelines):
        _add(book, book.memory, partial(memory, timeline, number))
    _add(book, book.startup, partial(startup, page.starts))
    if not page.cells:
        return book
    place = book.legend = speed.places(page.cells)
    book.engines = speed.engines(page.cells)
    try:
        with canvas.drawing():
            for workload in dict.fromkeys(cell.workload for cell in page.cells):
                mine = [cell for cell in page.cells if cell.workload == workload]
                _add(book, book.throughput, partial(speed.throughput, workload, mine, place))
            for name in speed.LATENCIES:
                _add(book, book.latency, partial(speed.latency, name, page.cells, place))
    except ImportError as error:
        book.problem = f"charts are missing: {error}"
    return book


def _add(book: Book, charts: list[Chart], make: Callable[[], Chart | None]) -> None:
    try:
        made = make()
    except Exception as error:  # a report without a chart is worth more than none
        book.problem = f"a chart could not be drawn: {type(error).__name__}: {error}"
        return
    if made is not None:
        charts.append(made)
