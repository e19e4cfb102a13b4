"""What the report shows, drawn from the records alone; the templates only lay it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.judge import describe
from acceptance.judging.judgement import Outcome
from acceptance.judging.verdict import RunVerdict, Tally, Verdict
from reports import ruling
from reports.schema import JudgementRecord, SelectedDeployment, ServerRecord, TestRecord, Trace
from reports.text import LANES, duration, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.reading import Results
    from reports.schema import AnyRecord

TONES = {Verdict.ACCEPTED: "good", Verdict.REJECTED: "bad", Verdict.INCOMPLETE: "short"}
_WORST_FIRST = (
    Outcome.FAIL,
    Outcome.INVALID,
    Outcome.UNGATED,
    Outcome.NOT_RUN,
    Outcome.MARGINAL,
    Outcome.PASS,
)


@dataclass(frozen=True)
class Failure:
    """Something that went wrong, its root cause first. kind: what it is, in a word."""

    kind: str
    deployment: str
    what: str
    title: str
    trace: Trace


@dataclass(frozen=True)
class Start:
    """One start of a server. segments: (phase, seconds, percent from the left, percent wide)."""

    record: ServerRecord
    total: float
    segments: tuple[tuple[str, float, float, float], ...]


@dataclass(frozen=True)
class DeploymentView:
    """A deployment's row, with its servers."""

    tally: Tally
    selected: SelectedDeployment | None
    tone: str
    starts: tuple[Start, ...]

    @property
    def commands(self) -> dict[str, str]:
        """Each command that started its servers, once, with the profile it was for."""
        return {s.record.command: s.record.profile for s in self.starts if s.record.command}


@dataclass(frozen=True)
class Row:
    """One judgement, or a check that did not run. limit: in words. margin: a share."""

    area: str
    check: str
    title: str
    profile: str
    outcome: Outcome
    required: bool
    reason: str
    metric: str = ""
    value: object = None
    unit: str = ""
    limit: str = ""
    source: str = ""
    margin: float | None = None
    attempt: int = 1


@dataclass(frozen=True)
class Page:
    """The whole report."""

    verdict: RunVerdict
    tone: str
    banner: str
    failures: tuple[Failure, ...]
    identity: tuple[tuple[str, str], ...]
    deployments: tuple[DeploymentView, ...]
    rows: dict[str, tuple[Row, ...]]

    @property
    def full(self) -> bool:
        """Whether this is the lane that accepts; every other is labelled everywhere."""
        return self.verdict.lane is Lane.FULL

    @property
    def lane(self) -> str:
        """The lane's name; empty when nothing was selected."""
        return self.verdict.lane.value if self.verdict.lane else ""


def draw(results: Results) -> Page:
    """The report of these results."""
    records = results.records
    verdict = ruling.verdict_of(results)
    known = {d.name: d for d in ruling.selected(records)}
    starts = [_start(r) for r in records if isinstance(r, ServerRecord) and r.outcome != "stopped"]
    return Page(
        verdict=verdict,
        tone=TONES[verdict.verdict],
        banner=LANES[verdict.lane] if verdict.lane and verdict.lane is not Lane.FULL else "",
        failures=tuple(_failures(records)),
        identity=tuple(_identity(results)),
        deployments=tuple(
            DeploymentView(
                tally=tally,
                selected=known.get(tally.deployment),
                tone=TONES[tally.verdict],
                starts=tuple(s for s in starts if s.record.deployment == tally.deployment),
            )
            for tally in verdict.tallies
        ),
        rows={
            tally.deployment: tuple(_rows(records, tally.deployment)) for tally in verdict.tallies
        },
    )


def _start(record: ServerRecord) -> Start:
    total = sum(record.phases.values())
    segments, left = [], 0.0
    for phase, seconds in record.phases.items():
        wide = 100 * seconds / total if total else 0.0
        segments.append((phase, seconds, left, wide))
        left += wide
    return Start(record, total, tuple(segments))


def _failures(records: Sequence[AnyRecord]) -> list[Failure]:
    logs = {r.deployment: r.trace.log for r in records if isinstance(r, ServerRecord)}

    def logged(deployment: str, trace: Trace, cause: str) -> Trace:
        log = trace.log or logs.get(deployment, "")
        return trace.model_copy(update={"cause": trace.cause or cause, "log": log})

    found = [
        Failure(
            "server failed",
            r.deployment,
            f"{r.profile} profile" if r.profile else "",
            "",
            logged(r.deployment, r.trace, ""),
        )
        for r in ruling.failed_servers(records)
    ]
    for broken in ruling.broken_tests(records):
        of = broken.check
        trace = logged(of.deployment, broken.trace, "")
        found.append(Failure("check broke", of.deployment, ruling.label(of), of.title, trace))
    for kind, outcome in (("limit not held", Outcome.FAIL), ("invalid", Outcome.INVALID)):
        for r in records:
            if not isinstance(r, JudgementRecord) or r.judgement.outcome is not outcome:
                continue
            if outcome is Outcome.INVALID and not r.judgement.required:
                continue
            what = f"{ruling.label(r.check)} · {r.judgement.measurement.name}"
            trace = logged(r.check.deployment, r.trace, r.judgement.reason)
            found.append(Failure(kind, r.check.deployment, what, r.check.title, trace))
    return found


def _identity(results: Results) -> list[tuple[str, str]]:
    run, end = results.run, ruling.last_end(results.records)
    if run is None:
        return []
    gpus = [f"{gpu.name} {gpu.uuid}".strip() for gpu in run.gpus]
    lasted = end.duration if end else results.records[-1].time - run.time
    return [
        ("Host", f"{run.host} · {run.platform}".strip(" ·")),
        ("GPUs", "; ".join(gpus) or "none"),
        ("Driver", run.driver or "–"),
        ("vLLM", run.vllm or "–"),
        ("Suite", f"{run.suite_version} {run.suite_commit}".strip()),
        ("Python", run.python),
        ("Tier", run.tier or "–"),
        ("Began", moment(run.time)),
        ("Lasted", duration(lasted) if end else f"{duration(lasted)}, then was cut off"),
        ("Command", " ".join(run.argv)),
    ]


def _rows(records: Sequence[AnyRecord], deployment: str) -> list[Row]:
    rows = [
        _row(r)
        for r in records
        if isinstance(r, JudgementRecord) and r.check.deployment == deployment
    ]
    titles = {r.check.nodeid: r.check for r in records if isinstance(r, TestRecord)}
    for skipped in ruling.not_run(records):
        if skipped.deployment == deployment:
            check = titles.get(skipped.key.partition("|")[2])
            rows.append(
                Row(
                    area=check.area if check else "",
                    check=skipped.check,
                    title=check.title if check else "",
                    profile=check.profile if check else "",
                    outcome=skipped.outcome,
                    required=skipped.required,
                    reason=skipped.reason,
                )
            )
    return sorted(rows, key=lambda row: (row.area, _WORST_FIRST.index(row.outcome), row.check))


def _row(record: JudgementRecord) -> Row:
    judgement, check = record.judgement, record.check
    limit, measurement = judgement.limit, judgement.measurement
    return Row(
        area=check.area,
        check=ruling.label(check),
        title=check.title,
        profile=check.profile,
        outcome=judgement.outcome,
        required=judgement.required,
        reason=judgement.reason,
        metric=measurement.name,
        value=measurement.value,
        unit=measurement.unit,
        limit=describe(limit) if limit else "",
        source=limit.source if limit else "",
        margin=judgement.margin,
        attempt=record.attempt,
    )
