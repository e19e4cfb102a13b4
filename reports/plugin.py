"""The report as a pytest plugin.

Whoever owns the run puts a RunContext into `config.stash[RUN_KEY]`, in the controller and in every
worker, before or in its own pytest_configure, and then calls prepare(config). Without the key
this plugin does nothing at all.
"""

from __future__ import annotations

import gc
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.junitxml import xml_key  # the only way to a property of the whole test suite

from reports.digest import digest_of, seal
from reports.exchanges import JOURNAL, Journal
from reports.html import HtmlHooks, polish
from reports.reading import read_results
from reports.ruling import closing, verdict_of
from reports.terminal import causes, closing_lines
from reports.testing import RecordHooks, TellHooks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from acceptance.deployments.schema import Lane
    from reports.digest import Digest
    from reports.reading import Results
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
    began: float = field(default_factory=time.monotonic)

    @property
    def report(self) -> Path:
        """Where the HTML report goes."""
        return self.run_dir / "acceptance.html"

    @property
    def junit(self) -> Path:
        """Where the JUnit XML goes."""
        return self.run_dir / "junit.xml"


CSS = Path(__file__).parent / "templates" / "report.css"
RUN_KEY = pytest.StashKey[RunContext]()
_NAME = "acceptance-report"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("acceptance").addoption(
        "--summary",
        metavar="FILE",
        type=Path,
        help="write the verdict as Markdown to FILE (default: add it to $GITHUB_STEP_SUMMARY)",
    )


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
    config.stash[JOURNAL] = Journal(context.recorder.redact)
    tell = TellHooks(context.recorder.redact, context.lanes, context.digests)
    config.pluginmanager.register(tell, _NAME)
    if hasattr(config, "workerinput"):
        return
    gc.unfreeze()  # what an earlier session of this process left, see _uncollected
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
    close = CloseHooks(context, copies)
    close.html = HtmlHooks(context.run_dir, close.read)
    config.pluginmanager.register(close.html, f"{_NAME}-html")
    config.pluginmanager.register(close, f"{_NAME}-close")


class CloseHooks:
    """Ends the run: its last record, its exit status, its reports, its last words. Controller only.

    copies: where the user wanted pytest's reports, which go to the run directory first.
    """

    def __init__(self, context: RunContext, copies: Mapping[Path, Path]) -> None:
        self.context = context
        self.copies = copies
        self.html: HtmlHooks | None = None
        self._all_ran = False
        self._known: tuple[Digest, Results] | None = None

    def read(self) -> Results:
        """The run's results, read again only when the file has changed."""
        now = digest_of(self.context.run_dir)
        if self._known is None or self._known[0] != now:
            self._known = now, read_results(self.context.run_dir)
        return self._known[1]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Notes that the last test has run. The exit status alone does not tell: interrupted twice
        in short order, pytest ends a session with that of a whole one."""
        looped = yield
        self._all_ran = True
        return looped

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> Generator[None, None, None]:
        """Outermost: the run's end is on disk before any report is made of it, and the verdict
        is printed after everything else."""
        with _uncollected():
            yield from self._finished(session, exitstatus)
            self._known = None  # nobody asks any more

    def _finished(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> Generator[None, None, None]:
        over = (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        )
        stopped = session.shouldfail or session.shouldstop
        end = closing(
            self.read(),
            finished=self._all_ran and exitstatus in over and not stopped,
            pytest_status=int(exitstatus),
            duration=time.monotonic() - self.context.began,
        )
        self.context.recorder.write(end)
        session.exitstatus = end.exit_status
        _tell_junit(session.config, self.read())
        try:
            yield
            self._tell(session.config)
        except OSError as error:
            session.exitstatus = session.exitstatus or pytest.ExitCode.INTERNAL_ERROR
            told = (
                f"the reports could not be written: {error}; python -m reports RUN_DIR makes them"
            )
            if (reporter := _terminal(session.config)) is not None:
                reporter.ensure_newline()
                reporter.write_line(told)

    def _tell(self, config: pytest.Config) -> None:
        """The report, its seal, its copies and the last words. Raises OSError."""
        # Here, for a run that makes no report, such as --plan, needs none of it.
        from reports.jobsummary import write_summary
        from reports.metricsfile import write_metrics

        results = self.read()
        self._finish_report(results)
        write_metrics(self.context.run_dir, results)
        write_summary(config.getoption("summary", None), results, self.context.run_dir)
        seal(self.context.run_dir, verdict_of(results).word)
        for path, other in self.copies.items():
            if path.exists() and path.resolve() != other.resolve():
                other.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, other)
        reporter = _terminal(config)
        if reporter is not None:
            reporter.ensure_newline()
            digest = digest_of(self.context.run_dir)
            for line in closing_lines(results, self.context.report, digest):
                reporter.write_line(self.context.recorder.redact(line))

    def _finish_report(self, results: Results) -> None:
        """Servers may end, and say so, after pytest-html was told: then its page is brought up to
        date. Where pytest-html is blocked, or was told too late, there is a page without it."""
        from reports.summary import render_page, render_summary

        report, run_dir = self.context.report, self.context.run_dir
        if self.html is None or self.html.digest is None or not report.exists():
            report.write_text(render_page(results, run_dir), encoding="utf-8")
            return
        stale = self.html.digest != digest_of(run_dir)
        polish(report, render_summary(results, run_dir) if stale else "")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The root cause of everything that went wrong, before pytest's own last line."""
        told = causes(self.read())
        if told:
            terminalreporter.section("what went wrong")
            for line in told:
                terminalreporter.write_line(line)


@contextmanager
def _uncollected() -> Iterator[None]:
    """What the tests left is searched for garbage once more, as pytest does at its end to warn of
    it; then never again. The report's own goes with the process, as all the rest does then: to
    search it for cycles once while, and four times after, was a quarter of what a report costs."""
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def _terminal(config: pytest.Config) -> Any:
    """pytest's terminal reporter; None where it is blocked."""
    return config.pluginmanager.get_plugin("terminalreporter")


def _tell_junit(config: pytest.Config, results: Results) -> None:
    """The verdict and the run's identity as properties of the test suite."""
    xml = config.stash.get(xml_key, None)
    run, verdict = results.run_on, verdict_of(results)
    if xml is None or run is None:
        return
    told = {
        "verdict": verdict.word,
        "lane": verdict.lane.value if verdict.lane else "",
        "tier": run.tier,
        "host": run.host,
        "vllm": run.vllm or "",
        "driver": run.driver or "",
        "suite": f"{run.suite_version} {run.suite_commit}".strip(),
        **{f"deployment.{d.name}": d.digest for d in run.deployments},
    }
    for name, value in told.items():
        xml.add_global_property(name, value)
