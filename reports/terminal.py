"""The last words on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from reports.failures import failures
from reports.ruling import verdict_of
from reports.text import LANES, visible

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.judging.verdict import Tally
    from reports.digest import Digest
    from reports.failures import Failure
    from reports.reading import Results

_MOST_REASONS = 12


def causes(results: Results) -> list[str]:
    """What went wrong, the root cause of each first."""
    return [line for failure in failures(results.records) for line in _failure(failure)]


def closing_lines(results: Results, report: Path, digest: Digest | None = None) -> list[str]:
    """Why the verdict is short of acceptance, the digest of the record for whoever signs, each
    deployment's counts after the verdict, and the report. Where a run of several falls short, each
    has a word of its own, and the run's comes last."""
    verdict = verdict_of(results)
    lines = []
    if not verdict.accepted:
        lines += [f"  {visible(reason, 300)}" for reason in verdict.reasons[:_MOST_REASONS]]
        more = len(verdict.reasons) - _MOST_REASONS
        lines += [f"  and {more} more reasons, in the report"] if more > 0 else []
    if verdict.lane and verdict.lane is not Lane.FULL:
        lines.append(f"  {LANES[verdict.lane]}")
    lines += [f"  digest {digest.sha256}"] if digest is not None else []
    if verdict.accepted or len(verdict.tallies) < 2:
        lines += [f"{verdict.word}  {counts(tally)}" for tally in verdict.tallies or (None,)]
    else:
        lines += [f"{tally.word}  {counts(tally)}" for tally in verdict.tallies]
        lines.append(f"{verdict.word}  the whole run")
    return [*lines, f"report  {report}"]


def counts(tally: Tally | None) -> str:
    """Such as `rehearsal-tp-ep 31 passed, 0 failed, 2 ungated`."""
    if tally is None:
        return "nothing was judged"
    told = [f"{tally.passed + tally.marginal} passed"]
    told[0] += f" ({tally.marginal} marginal)" if tally.marginal else ""
    told.append(f"{tally.failed} failed")
    rest = {
        "errors": tally.errors,
        "invalid": tally.invalid,
        "ungated": tally.ungated,
        "not run": tally.not_run,
    }
    told += [f"{count} {name}" for name, count in rest.items() if count]
    return f"{tally.deployment or 'run'} {', '.join(told)}"


def _failure(failure: Failure) -> list[str]:
    trace = failure.trace
    lines = [
        f"{failure.deployment or 'run'}: {failure.kind}: {visible(failure.what, 300)}"
        + (f", and {failure.also} more for this cause" if failure.also else ""),
        f"  {visible(trace.cause, 500)}",
    ]
    lines += [f"  log: {trace.log}"] if trace.log else []
    return [*lines, f"  try: {visible(trace.hint, 300)}"] if trace.hint else lines
