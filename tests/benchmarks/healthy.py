"""Healthy runs in a row: does anything healthy fail.

    .tox/rehearsal/bin/python tests/benchmarks/healthy.py [-n 10] [--runs FOLDER]
        [--deployment GLOB] [PYTEST ARGUMENTS]

Runs the rehearsal as `./accept rehearse` does, or other deployments, n times, and prints a table of
their outcomes and of every judgement that was ever short. Runs that are there already are counted
and not repeated, so a series that was broken off goes on. Exits with 0 when every run was REHEARSED
or SIMULATED; or, with arguments such as suites/performance, INCOMPLETE for that reason alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from acceptance.judging.judgement import Outcome  # noqa: E402
from reports.reading import read_results  # noqa: E402
from reports.ruling import last_end, verdict_of  # noqa: E402
from reports.schema import JudgementRecord  # noqa: E402

SHORT = (Outcome.FAIL, Outcome.INVALID)
WORDS, PART = ("REHEARSED", "SIMULATED"), "INCOMPLETE"


def run(folder: Path, arguments: list[str]) -> None:
    """One rehearsal, into a folder of its own."""
    command = [sys.executable, "-m", "pytest", "--tier", "gate"]
    subprocess.run([*command, "--run-dir", str(folder), "-q", *arguments], cwd=ROOT, check=False)


def row(folder: Path) -> tuple[str, Counter[str]]:
    """A line of the table, and what was short in this run."""
    results = read_results(folder)
    end, verdict = last_end(results.records), verdict_of(results)
    short = Counter(
        f"{r.check.deployment} {r.check.check.rpartition('::')[2]} {r.judgement.measurement.name}"
        for r in results.records
        if isinstance(r, JudgementRecord) and r.judgement.required and r.judgement.outcome in SHORT
    )
    told = "; ".join(
        f"{t.deployment} {t.passed + t.marginal} passed, {t.failed} failed, {t.invalid} invalid, "
        f"{t.errors} errors, {t.not_run} not run"
        for t in verdict.tallies
    )
    seconds = f"{end.duration:.0f} s" if end else "cut off"
    return f"| {folder.name} | {verdict.word} | {seconds} | {told} |", short


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=10)
    parser.add_argument("--runs", type=Path, default=ROOT / "reports" / "runs" / "healthy")
    parser.add_argument("--deployment", default="rehearsal-*")
    given, arguments = parser.parse_known_args()
    arguments += ["--deployment", given.deployment]
    folders = [given.runs.resolve() / f"{number:02}" for number in range(1, given.n + 1)]
    for folder in folders:
        if (
            not (folder / "results.jsonl").exists()
            or last_end(read_results(folder).records) is None
        ):
            run(folder, arguments)
    print("| run | verdict | lasted | deployments |\n|---|---|---|---|")
    ever: Counter[str] = Counter()
    words = []
    for folder in folders:
        line, short = row(folder)
        print(line)
        ever.update(short.keys())
        words.append(verdict_of(read_results(folder)).word)
    for what, times in ever.most_common():
        print(f"short in {times} of {given.n}: {what}")
    wanted = (PART,) if any(word.startswith("suites/") for word in arguments) else WORDS
    healthy = sum(word in wanted for word in words)
    print(f"{healthy} of {given.n} {' or '.join(wanted)}")
    return int(healthy != given.n)


if __name__ == "__main__":
    sys.exit(main())
