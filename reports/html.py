"""What this suite makes of pytest-html's report, through that plugin's hooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import pytest

from reports.reading import read_results
from reports.summary import render_summary, title
from reports.testing import check_of
from reports.text import visible
from reports.view import draw

if TYPE_CHECKING:
    from pathlib import Path

    from reports.testing import Report

_LONGEST_LOG = 20_000


class HtmlHooks:
    """Opens acceptance.html with the verdict and gives each test its deployment. Controller
    only. pytest-html prints what these hooks return as it is, so they escape everything."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.report: Any = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: Any) -> None:
        """Keeps the report, for its title can only be known at the end; drops pytest-html's
        table of the environment, which it prints unescaped and the run's identity replaces."""
        self.report = report
        report.title = "Not finished"
        report.set_data("environment", {})

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        """The verdict and all it rests on, from results.jsonl and nothing else."""
        results = read_results(self.run_dir)
        prefix.append(render_summary(results))
        if self.report is not None:
            self.report.title = title(draw(results))

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        """Result, Test, Deployment, Lane, Duration, Links."""
        cells[2:2] = [
            '<th class="sortable" data-column-type="deployment">Deployment</th>',
            '<th class="sortable" data-column-type="lane">Lane</th>',
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: Report, cells: list[str]) -> None:
        """A row to match. pytest-html leaves the node id unescaped."""
        check = check_of(report)
        name = report.nodeid if report.when in (None, "call") else f"{report.nodeid}::{report.when}"
        deployment, lane = (check.deployment, check.lane or "") if check else ("", "")
        cells[1] = _cell("testId", name)
        cells[2:2] = [_cell("deployment", deployment), _cell("lane", lane)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_html(self, data: list[str]) -> None:
        """Logs keep their end, where the cause is, and lose what no eye can see."""
        data[:] = [visible(_end(entry), len(entry) + 100) for entry in data]


def _cell(column: str, text: str) -> str:
    return f'<td class="col-{column}">{html.escape(visible(text, 500))}</td>'


def _end(log: str) -> str:
    """The last part of a log that pytest-html escaped already, cut where no entity is split."""
    if len(log) <= _LONGEST_LOG:
        return log
    cut = log[-_LONGEST_LOG:]
    half = cut.find(";", 0, 8)  # the rest of an entity such as &quot; or &#x27;
    return f"… ({len(log) - len(cut)} earlier characters)\n" + cut[half + 1 :]
