"""What pytest says of its tests, brought into results.jsonl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reports.checks import describe, explain, lanes_of, named, test_record
from reports.exchanges import journal_of
from reports.schema import Check, TestRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from acceptance.deployments.schema import Lane
    from reports.recorder import Recorder

Report = pytest.TestReport | pytest.CollectReport
_CHECK, _ERROR = "acceptance_check", "acceptance_error"


def check_of(report: Report) -> Check | None:
    """The check that a report is about, as it was described where the test ran."""
    data = getattr(report, _CHECK, None)
    return Check.model_validate(data) if data else None


class TellHooks:
    """Describes each test where it runs, in worker or controller, and takes secrets out of its
    report before anybody prints or stores it."""

    def __init__(
        self,
        redact: Callable[[str], str],
        lanes: Mapping[str, Lane],
        digests: Mapping[str, str],
    ) -> None:
        self.redact = redact
        self.lanes = lanes
        self.digests = digests

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """What an earlier test asked of a server is not this one's."""
        journal = journal_of(item.config)
        if journal is not None:
            journal.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Everything added is plain data: it travels from a worker to the controller."""
        report = yield
        check = lanes_of(describe(item), self.lanes, self.digests)
        setattr(report, _CHECK, check.model_dump(mode="json"))
        error = explain(call.excinfo.value) if report.failed and call.excinfo else {}
        setattr(report, _ERROR, error)
        told = (
            ("deployment", check.deployment),
            ("lane", check.lane.value if check.lane else ""),
            ("profile", check.profile),
            ("area", check.area),
            ("digest", check.digest),
        )
        report.user_properties += [(name, value) for name, value in told if value]
        redact_report(report, self.redact)
        return report


class RecordHooks:
    """Writes one line for each test and each failed collection. Controller only."""

    def __init__(self, recorder: Recorder, lanes: Mapping[str, Lane]) -> None:
        self.recorder = recorder
        self.lanes = lanes
        self.collected: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A worker that died reports a failure without a description: its node id must do."""
        if report.outcome not in ("passed", "failed", "skipped"):
            return  # a rerun, whose last attempt follows
        if report.when != "call" and report.passed:
            return
        check = check_of(report) or named(report.nodeid, self.lanes)
        self._write(test_record(check, report, getattr(report, _ERROR, {})))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected, or skips itself, holds checks that did not run. With
        several workers each reports it: once is enough."""
        if report.passed or report.nodeid in self.collected:
            return
        self.collected.add(report.nodeid)
        redact_report(report, self.recorder.redact)
        self._write(test_record(Check(check=report.nodeid, nodeid=report.nodeid), report, {}))

    def _write(self, record: TestRecord | None) -> None:
        if record is not None:
            self.recorder.write(record)


def redact_report(report: Report, redact: Callable[[str], str]) -> None:
    """Takes secrets out of a report's failure text and captured output, in place."""
    longrepr: Any = report.longrepr
    if isinstance(longrepr, tuple):
        path, line, reason = longrepr
        report.longrepr = (path, line, redact(reason))
    elif longrepr is not None:
        whole = report.longreprtext
        clean = redact(whole)
        if clean != whole:
            report.longrepr = clean
    report.sections = [(redact(name), redact(content)) for name, content in report.sections]
