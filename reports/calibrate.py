"""`python -m reports.calibrate FILE RUN RUN…`: a site's references from repeated runs.

FILE is what a later run is given as --references; it is written, or its entries replaced. Exit
status: 0 when it was written, 2 when the runs are no ground for references or FILE is not
understood; then FILE is left alone.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.errors import InputError
from acceptance.judging.calibration import REPETITIONS, Calibration, calibrate, save
from acceptance.judging.references import load_references
from reports.compare import names_of
from reports.observing import observations
from reports.reading import read_results
from reports.ruling import facts_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def calibrate_runs(
    file: Path,
    runs: Sequence[Path],
    *,
    repetitions: int = REPETITIONS,
    rebaseline: str = "",
    need_correctness: bool = True,
) -> Calibration:
    """Writes FILE from recorded runs, each of which is one repetition. Raises InputError when they
    are no ground for references (calibration.py), when one of them had an error or cannot be read
    whole, and when the file is not understood."""
    observed = []
    for name, run in zip(names_of(runs), runs, strict=True):
        results = read_results(run)
        faults = [fault.what for fault in facts_of(results).faults]
        if wrong := [*map(str, results.problems), *faults]:
            raise InputError(f"{name} is no healthy run: {wrong[0]}", asked=f"calibrating {file}")
        observed += observations(results, name)
    made = calibrate(
        observed,
        today=datetime.datetime.now(datetime.UTC).date(),
        repetitions=repetitions,
        existing=load_references([file] if file.exists() else []),
        rebaseline=rebaseline,
        need_correctness=need_correctness,
    )
    save(file, made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file, says what was kept or rebased, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.calibrate", description="A site's references from repeated runs."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="references file to write")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="fewest runs")
    parser.add_argument("--rebaseline", default="", metavar="REASON", help="accept looser limits")
    parser.add_argument(
        "--without-correctness", action="store_true", help="accept runs that judged no tokens"
    )
    options = parser.parse_args(argv)
    return write(
        options.file,
        options.runs,
        repetitions=options.repetitions,
        rebaseline=options.rebaseline,
        need_correctness=not options.without_correctness,
    )


def write(
    file: Path,
    runs: Sequence[Path],
    *,
    repetitions: int,
    rebaseline: str,
    need_correctness: bool = True,
) -> int:
    """calibrate_runs, said on the terminal. Returns the exit status."""
    try:
        made = calibrate_runs(
            file,
            runs,
            repetitions=repetitions,
            rebaseline=rebaseline,
            need_correctness=need_correctness,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for note in made.notes:
        print(note)
    gating = sum(not entry.advisory for entry in made.references)
    print(f"{file}: {gating} limits, {len(made.references) - gating} advisory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
