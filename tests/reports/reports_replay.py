"""Reports of a run made by a real pytest session in this process, without running any test: what
pytest would say of each is handed to the reporting plugins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.deployments.schema import Lane
from reports.digest import read_run
from reports.plugin import RUN_KEY, RunContext, prepare
from reports.reading import read_results
from reports.recorder import Recorder
from reports.schema import EndRecord, JudgementRecord, TestRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.schema import AnyRecord

_CHECK = "acceptance_check"


class Kept(Recorder):
    """A recorder of a run that is written already: only its end is new."""

    def write(self, record: AnyRecord) -> None:
        if isinstance(record, EndRecord):
            return


class Replay:
    """Hands reports to pytest's plugins. run: whose acceptance.html is made; None for pytest-html
    as it comes."""

    def __init__(self, reports: Sequence[pytest.TestReport], run: Path | None) -> None:
        self.reports = reports
        self.run = run

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        if self.run is not None:
            told = read_run(self.run) or {}  # what a run knows without having read its record
            lanes = {d["name"]: Lane(d["lane"]) for d in told.get("deployments", ())}
            config.stash[RUN_KEY] = RunContext(self.run, Kept(self.run), lanes)
            prepare(config)

    def pytest_collection(self, session: pytest.Session) -> bool:
        session.items = []
        session.testscollected = len(self.reports) // 3
        return True

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for report in self.reports:
            session.config.hook.pytest_runtest_logreport(report=report)
            session.testsfailed += report.failed
        return True


def reports_of(run: Path, *, least: int = 0, output: str = "") -> list[pytest.TestReport]:
    """Setup, call and teardown of every test of a run. least: further tests that passed are added
    up to so many. output: what each printed."""
    results = read_results(run)
    failed = {
        r.check.nodeid: r.judgement.reason
        for r in results.records
        if isinstance(r, JudgementRecord) and r.judgement.outcome in ("FAIL", "INVALID")
    }
    checks = {
        r.check.nodeid: r.check
        for r in results.records
        if isinstance(r, JudgementRecord | TestRecord) and r.check.nodeid
    }
    named: dict[str, Any] = {
        nodeid: check.model_dump(mode="json") for nodeid, check in checks.items()
    }
    for number in range(len(named), least):
        named[f"suites/conformance/test_more.py::test_more[{number}]"] = None
    made = []
    for nodeid, check in named.items():
        for when in ("setup", "call", "teardown"):
            short = failed.get(nodeid, "") if when == "call" else ""
            report = pytest.TestReport(
                nodeid=nodeid,
                location=(nodeid.split("::")[0], 1, nodeid),
                keywords={},
                outcome="failed" if short else "passed",
                longrepr=short or None,
                when=when,
                sections=[("Captured stdout call", output)] if output and when == "call" else [],
                duration=0.01,
            )
            setattr(report, _CHECK, check)
            made.append(report)
    return made


def replay(reports: Sequence[pytest.TestReport], folder: Path, *, run: Path | None = None) -> Path:
    """Makes the report and returns its path. run: for the suite's; else folder/plain.html is
    pytest-html's own."""
    here = Path.cwd()
    own = [f"--html={folder / 'plain.html'}", "--self-contained-html"] if run is None else []
    plugins = [] if run is None else ["-p", "reports.plugin"]
    words = [
        *plugins,
        *own,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:terminal",
        f"--rootdir={folder}",
    ]
    try:
        os.chdir(folder)
        (folder / "pytest.ini").write_text("[pytest]\n")
        pytest.main([*words, "-c", str(folder / "pytest.ini")], plugins=[Replay(reports, run)])
    finally:
        os.chdir(here)
    return (run / "acceptance.html") if run is not None else folder / "plain.html"
