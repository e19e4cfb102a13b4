"""What this suite makes of pytest-html's report, through that plugin's hooks."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

import pytest

from reports.testing import check_of
from reports.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reports.digest import Digest
    from reports.reading import Results
    from reports.testing import Report

BEGIN, END = "<!-- acceptance -->", "<!-- /acceptance -->"  # around the suite's own part
_LONGEST_LOG = 20_000
_POLISH = (
    ("<html>", '<html lang="en">'),
    (
        '<meta charset="utf-8"/>',
        '<meta charset="utf-8"/><meta name="viewport" '
        'content="width=device-width, initial-scale=1"/>',
    ),
    ('<img src="" />', '<img alt="" />'),
    (
        '<table id="results-table">',
        '<table id="results-table" aria-label="Tests that failed">',
    ),
)
_BOX = re.compile(r'(<input checked="true" class="filter"[^>]*?data-test-result="(\w+)")')


class HtmlHooks:
    """Opens acceptance.html with the verdict and gives each test its deployment. Controller
    only. pytest-html prints what these hooks return as it is, so they escape everything."""

    def __init__(self, run_dir: Path, read: Callable[[], Results]) -> None:
        self.run_dir = run_dir
        self.read = read
        self.report: Any = None
        self.digest: Digest | None = None  # of what the page was made of
        self.passed = self.skipped = 0
        self.kept = 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: Any) -> None:
        """Keeps the report, for its title can only be known at the end; drops pytest-html's
        table of the environment, which it prints unescaped and the run's identity replaces."""
        self.report = report
        report.title = "Not finished"
        report.set_data("environment", {})

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, prefix: list[str], postfix: list[str]) -> None:
        """The verdict and all it rests on, from results.jsonl and the run's folder alone."""
        from reports.summary import render, title  # here: it takes long to import
        from reports.view import draw

        page = draw(self.read(), self.run_dir)
        self.digest = page.digest
        prefix.append(render(page))
        postfix.append(_heading(self.passed, self.skipped, self.kept))
        if self.report is not None:
            self.report.title = title(page)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        """Result, Test, Deployment, Lane, Duration, Links."""
        cells[2:2] = [
            '<th class="sortable" data-column-type="deployment">Deployment</th>',
            '<th class="sortable" data-column-type="lane">Lane</th>',
        ]

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_html_results_table_row(self, report: Report, cells: list[str]) -> None:
        """A row to match. pytest-html leaves the node id unescaped. A test that passed or was
        skipped has none: its judgements stand above, and a thousand rows would hide the others."""
        if not report.failed and not hasattr(report, "wasxfail"):
            self.passed += report.passed and report.when == "call"
            self.skipped += report.skipped
            cells.clear()
            return
        self.kept += 1
        check = check_of(report)
        name = report.nodeid if report.when in (None, "call") else f"{report.nodeid}::{report.when}"
        deployment, lane = (check.deployment, check.lane or "") if check else ("", "")
        cells[1] = _cell("testId", name)
        cells[2:2] = [_cell("deployment", deployment), _cell("lane", lane)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_html(self, data: list[str]) -> None:
        """Logs keep their end, where the cause is, and lose what no eye can see."""
        data[:] = [visible(_end(entry), len(entry) + 100) for entry in data]


def _heading(passed: int, skipped: int, kept: int) -> str:
    """Above pytest's own rows: what they are, and how many are not there."""
    told = f"{passed} passed and {skipped} were skipped: they stand above, and have no row here."
    heading = "Tests that failed, in pytest's own words"
    state = "" if kept else " none"
    return (
        f'<div class="acceptance-report pytest-heading{state}"><h2>{heading}</h2>'
        f'<p class="dim">{told}</p></div>'
    )


def polish(report: Path, fragment: str = "") -> None:
    """Gives pytest-html's page a language and its controls names; hides its table where it would
    be empty. fragment: replaces the suite's own part, where records came after it was made."""
    text = report.read_text(encoding="utf-8")
    for old, new in _POLISH:
        text = text.replace(old, new, 1)
    text = _BOX.sub(r'\1 aria-label="show \2"', text)
    if "pytest-heading none" in text:
        text = text.replace("<body>", '<body class="no-rows">', 1)
    if fragment and BEGIN in text and END in text:
        text = text[: text.index(BEGIN)] + fragment + text[text.index(END) + len(END) :]
    report.write_text(text, encoding="utf-8")


def _cell(column: str, text: str) -> str:
    return f'<td class="col-{column}">{html.escape(visible(text, 500))}</td>'


def _end(log: str) -> str:
    """The last part of a log that pytest-html escaped already, cut where no entity is split."""
    if len(log) <= _LONGEST_LOG:
        return log
    cut = log[-_LONGEST_LOG:]
    half = cut.find(";", 0, 8)  # the rest of an entity such as &quot; or &#x27;
    return f"… ({len(log) - len(cut)} earlier characters)\n" + cut[half + 1 :]
