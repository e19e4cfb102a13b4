"""The report as a pytest plugin.

Whoever owns the run puts a RunContext into `config.stash[RUN_KEY]`, in the controller and in every
worker, before or in its own pytest_configure, and then calls prepare(config). Without the key
this plugin does nothing at all.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reports.html import HtmlHooks
from reports.reading import read_results
from reports.ruling import closing
from reports.summary import CSS, render_page
from reports.terminal import causes, closing_lines
from reports.testing import RecordHooks, TellHooks

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from acceptance.deployments.schema import Lane
    from reports.recorder import Recorder


@dataclass
class RunContext:
    """What the report needs to know of a run.

    recorder: writes its results.jsonl; its redactor knows this process's secrets.
    lanes, digests: of every selected deployment, by name.
    """

    run_dir: Path
    recorder: Recorder
    lanes: Mapping[str, Lane]
    digests: Mapping[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    @property
    def report(self) -> Path:
        """Where the HTML report goes."""
        return self.run_dir / "acceptance.html"

    @property
    def junit(self) -> Path:
        """Where the JUnit XML goes."""
        return self.run_dir / "junit.xml"


RUN_KEY = pytest.StashKey[RunContext]()
_NAME = "acceptance-report"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Prepares the report when the run is known by now; else its owner calls prepare."""
    prepare(config)


def prepare(config: pytest.Config) -> None:
    """Points pytest's own reports into the run directory and starts recording. Does nothing
    without RUN_KEY, and nothing the second time.

    Must be called before pytest-html's and junitxml's pytest_configure: from a tryfirst one.
    """
    if RUN_KEY not in config.stash or config.pluginmanager.has_plugin(_NAME):
        return
    context = config.stash[RUN_KEY]
    tell = TellHooks(context.recorder.redact, context.lanes, context.digests)
    config.pluginmanager.register(tell, _NAME)
    if hasattr(config, "workerinput"):
        return
    wanted = {
        context.report: config.getoption("htmlpath", None),
        context.junit: config.getoption("xmlpath", None),
    }
    config.option.htmlpath = str(context.report)
    config.option.self_contained_html = True
    config.option.css = [*(config.getoption("css", None) or []), str(CSS)]
    config.option.xmlpath = str(context.junit)
    copies = {path: Path(other) for path, other in wanted.items() if other}
    record = RecordHooks(context.recorder, context.lanes)
    config.pluginmanager.register(record, f"{_NAME}-record")
    config.pluginmanager.register(HtmlHooks(context.run_dir), f"{_NAME}-html")
    config.pluginmanager.register(CloseHooks(context, copies), f"{_NAME}-close")


class CloseHooks:
    """Ends the run: its last record, its exit status, its last words. Controller only.

    copies: where the user wanted pytest's reports, which go to the run directory first.
    """

    def __init__(self, context: RunContext, copies: Mapping[Path, Path]) -> None:
        self.context = context
        self.copies = copies

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> Generator[None, None, None]:
        """Outermost: the run's end is on disk before any report is made of it, and the verdict
        is printed after everything else."""
        over = (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        )
        end = closing(
            read_results(self.context.run_dir),
            finished=exitstatus in over and not session.shouldfail and not session.shouldstop,
            pytest_status=int(exitstatus),
            duration=time.time() - self.context.began,
        )
        self.context.recorder.write(end)
        session.exitstatus = end.exit_status
        yield
        if not self.context.report.exists():  # pytest-html is blocked, or was told too late
            page = render_page(read_results(self.context.run_dir))
            self.context.report.write_text(page, encoding="utf-8")
        for path, other in self.copies.items():
            if path.exists() and path.resolve() != other.resolve():
                other.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, other)
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            results = read_results(self.context.run_dir)
            for line in closing_lines(results, self.context.report):
                reporter.write_line(self.context.recorder.redact(line))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The root cause of everything that went wrong, before pytest's own last line."""
        told = causes(read_results(self.context.run_dir))
        if told:
            terminalreporter.section("what went wrong")
            for line in told:
                terminalreporter.write_line(line)
