"""Which check a pytest item is, and how its end is recorded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from acceptance.deployments.schema import Deployment, Lane
from acceptance.errors import AcceptanceError
from acceptance.judging.judge import describe as describe_limit
from acceptance.judging.judgement import Outcome
from reports.schema import Check, JudgementRecord, TestRecord, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from acceptance.judging.judgement import Judgement
    from reports.schema import Exchange

AREAS = ("conformance", "correctness", "memory", "performance", "resilience")
HELD = (Outcome.PASS, Outcome.MARGINAL, Outcome.NOT_RUN)
_EXCERPT_LINES = 40
_TITLE = 300  # characters
_EXCHANGES = 3  # of a check that is short
_PHASES = ("setup", "call", "teardown", "collect")


class JudgementFailed(AssertionError):
    """A judgement that was recorded is short of its limit. Raised by the judge fixture, so that
    the test's failure is known to be told already."""

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement
        name = judgement.measurement.name
        lines = [f"{judgement.outcome}: {name}: {judgement.reason}"]
        if judgement.limit is not None:
            limit = judgement.limit
            lines.append(f"limit: {describe_limit(limit)}, from {limit.source}")
        super().__init__("\n".join(lines))


def describe(item: pytest.Item, **known: Any) -> Check:
    """The check an item runs. known: fields that the caller knows better.

    The deployment is the Deployment among the item's parameters, or the text of a parameter
    named `deployment`; its profile a parameter or a `profile` marker.
    """
    callspec = getattr(item, "callspec", None)
    params: dict[str, Any] = dict(callspec.params) if callspec else {}
    deployment = next((p for p in params.values() if isinstance(p, Deployment)), None)
    name = deployment.name if deployment else str(params.get("deployment", ""))
    marker = item.get_closest_marker("profile")
    profile = params.get("profile") or (marker.args[0] if marker and marker.args else "")
    nodeid = _ungrouped(item.nodeid)
    found: dict[str, Any] = {
        "deployment": name,
        "digest": deployment.digest if deployment else "",
        "lane": deployment.lane if deployment else None,
        "profile": str(profile),
        "area": _area(item),
        "check": _bare(nodeid),
        "variant": _variant(callspec.id if callspec else "", name, str(profile)),
        "nodeid": nodeid,
        "title": _title(item),
    }
    return Check(**{**found, **known})


def judgement_record(
    check: Check,
    judgement: Judgement,
    *,
    attempt: int = 1,
    conditions: Mapping[str, Any] | None = None,
    trace: Trace | None = None,
    exchanges: Sequence[Exchange] = (),
) -> JudgementRecord:
    """The line for one judgement, made now. conditions: what its reference was looked up by.
    exchanges: what was asked of the server for it; those of a check that held are fewer."""
    kept = exchanges if judgement.outcome not in HELD else exchanges[-1:]
    return JudgementRecord(
        time=time.time(),
        check=check,
        judgement=judgement,
        attempt=attempt,
        conditions=dict(conditions or {}),
        trace=trace or Trace(),
        exchanges=tuple(kept[-_EXCHANGES:]),
    )


def test_record(
    check: Check, report: pytest.TestReport | pytest.CollectReport, error: Mapping[str, Any]
) -> TestRecord | None:
    """The line for one report; None for a setup or teardown that passed.

    error: what explain() found where the test ran.
    """
    if report.when != "call" and report.passed:
        return None
    outcome: str = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xfailed" if report.skipped else "xpassed"
    return TestRecord.model_validate(
        {
            "time": time.time(),
            "check": check,
            "phase": report.when if report.when in _PHASES else "call",  # a dead worker says ???
            "outcome": outcome,
            "judged": error.get("judged", False),
            "duration": getattr(report, "duration", 0.0),
            "error": error.get("error", ""),
            "trace": error.get("trace") or _trace_of(report),
        }
    )


test_record.__test__ = False  # type: ignore[attr-defined]


def explain(error: BaseException) -> dict[str, Any]:
    """What an exception says that its text alone does not; plain data, for it may travel from a
    worker to the controller. An exception with `judged = True` was recorded as a judgement."""
    found: dict[str, Any] = {
        "error": type(error).__name__,
        "judged": isinstance(error, JudgementFailed) or getattr(error, "judged", False) is True,
    }
    if isinstance(error, AcceptanceError):
        trace = Trace(
            cause=error.cause or error.happened,
            excerpt=tuple(str(error).splitlines()[:_EXCERPT_LINES]),
            log=str(error.log or ""),
            hint=error.hint,
        )
        found["trace"] = trace.model_dump(mode="json")
    return found


def _trace_of(report: pytest.TestReport | pytest.CollectReport) -> Trace:
    if report.passed:
        return Trace()
    if isinstance(report.longrepr, tuple):  # of a skip: path, line, reason
        return Trace(cause=report.longrepr[2].removeprefix("Skipped: "))
    reason = str(getattr(report, "wasxfail", "")).removeprefix("reason: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = report.longreprtext.splitlines()
    cause = reason or (crash.message if crash else next((x for x in lines[::-1] if x.strip()), ""))
    first = next((line for line in cause.splitlines() if line.strip()), "it gave no reason")
    return Trace(cause=first, excerpt=tuple(lines[-_EXCERPT_LINES:]))


def _title(item: pytest.Item) -> str:
    """The first sentence of the test's docstring."""
    told = (getattr(getattr(item, "obj", None), "__doc__", None) or "").strip()
    paragraph = " ".join(told.split("\n\n", 1)[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return (sentence + dot.strip())[:_TITLE]


def _area(item: pytest.Item) -> str:
    marked = next((area for area in AREAS if item.get_closest_marker(area)), "")
    return marked or next((part for part in item.path.parts[::-1] if part in AREAS), "")


def _ungrouped(nodeid: str) -> str:
    """Without the `@group` that pytest-xdist appends."""
    head, at, tail = nodeid.rpartition("@")
    return head if at and "]" not in tail and "::" not in tail else nodeid


def _bare(nodeid: str) -> str:
    return nodeid.split("[", 1)[0].removeprefix("suites/")


def _variant(callspec_id: str, *known: str) -> str:
    """Parameters of an item as its id shows them, without those that are told elsewhere."""
    rest = f"-{callspec_id}-"
    for word in known:
        if word:
            rest = rest.replace(f"-{word}-", "-", 1)
    return rest.strip("-")


def lanes_of(check: Check, lanes: Mapping[str, Lane], digests: Mapping[str, str]) -> Check:
    """The check with lane and digest filled in from the run, where the item did not say."""
    lane = check.lane or lanes.get(check.deployment)
    digest = check.digest or digests.get(check.deployment, "")
    return check.model_copy(update={"lane": lane, "digest": digest})


def named(nodeid: str, deployments: Mapping[str, Lane]) -> Check:
    """What a node id alone tells, for a test whose worker did not live to describe it."""
    bare = _ungrouped(nodeid)
    known = sorted(deployments, key=len, reverse=True)
    deployment = next((name for name in known if name in nodeid), "")
    return Check(deployment=deployment, check=_bare(bare), nodeid=bare)
