"""`python -m reports RUN_DIR`: the verdict of a recorded run, also of one that was cut off.

Writes acceptance.html where the run could not. Exit status: 0 when the verdict is its lane's
acceptance, 1 when it is short, 2 when there is nothing to read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reports.digest import digest_of
from reports.reading import read_results
from reports.ruling import last_end, verdict_of
from reports.summary import render_page
from reports.terminal import causes, closing_lines


def main(argv: list[str]) -> int:
    """Prints what the terminal said at the end of the run, or would have said."""
    if len(argv) != 1 or not Path(argv[0]).is_dir():
        print("usage: python -m reports RUN_DIR", file=sys.stderr)
        return 2
    run_dir = Path(argv[0])
    results = read_results(run_dir)
    report = run_dir / "acceptance.html"
    if last_end(results.records) is None or not report.exists():
        report.write_text(render_page(results, run_dir), encoding="utf-8")
    for line in (*causes(results), *closing_lines(results, report, digest_of(run_dir))):
        print(line)
    return 0 if verdict_of(results).accepted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
