"""The verdict as Markdown, for the summary of a CI job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from reports.digest import digest_of
from reports.facts import facts
from reports.failures import failures
from reports.ruling import verdict_of
from reports.text import LANES, markdown

if TYPE_CHECKING:
    from reports.reading import Results

JOB_SUMMARY = "GITHUB_STEP_SUMMARY"  # of the environment: a file that steps add to
_MOST = 10
_COUNTS = ("passed", "marginal", "failed", "errors", "invalid", "ungated", "not_run")


def write_summary(file: Path | None, results: Results, run_dir: Path | None) -> Path | None:
    """Writes FILE, or adds to the job's own summary; nothing where there is neither. What cannot
    be written is no reason to end a run otherwise."""
    job = os.environ.get(JOB_SUMMARY, "")
    try:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(summary(results, run_dir), encoding="utf-8")
            return file
        if job:
            with Path(job).open("a", encoding="utf-8") as stream:
                stream.write(summary(results, run_dir))
            return Path(job)
    except OSError:
        return None
    return None


def summary(results: Results, run_dir: Path | None = None) -> str:
    """Verdict, reasons, deployments, root causes and identity."""
    verdict = verdict_of(results)
    lane = f" ({verdict.lane.value} lane)" if verdict.lane else ""
    lines = [f"## {verdict.word}{lane}", ""]
    if verdict.lane is not None:
        lines += [markdown(LANES[verdict.lane]), ""]
    lines += [f"- {markdown(reason, 300)}" for reason in verdict.reasons[:_MOST]]
    more = len(verdict.reasons) - _MOST
    lines += [f"- and {more} more reasons"] if more > 0 else []
    names = ["deployment", "result", *(count.replace("_", " ") for count in _COUNTS)]
    lines += ["", _row(names), _row(["---", "---", *["---:"] * len(_COUNTS)])]
    for tally in verdict.tallies:
        counts = [str(getattr(tally, count)) for count in _COUNTS]
        lines.append(_row([markdown(tally.deployment or "run"), tally.word, *counts]))
    wrong = failures(results.records)
    lines += ["", "### What went wrong", ""] if wrong else []
    lines += [
        f"- {markdown(one.deployment or 'run')}, {one.kind}, {markdown(one.what, 200)}: "
        f"{markdown(one.trace.cause, 300)}{f' (and {one.also} more)' if one.also else ''}"
        for one in wrong[:_MOST]
    ]
    lines += [f"- and {len(wrong) - _MOST} more"] if len(wrong) > _MOST else []
    told = [f"{name} {markdown(value, 100)}" for name, value in facts(results)]
    lines += ["", ", ".join(told)]
    if run_dir is not None:
        lines += ["", f"Digest of results.jsonl: `{digest_of(run_dir).sha256}`"]
    return "\n".join([*lines, "", ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
