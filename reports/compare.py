"""`python -m reports.compare RUN RUN…`: recorded runs against one another, cell by cell.

The first run is the base, or the first N with --base N; all others are what is compared with it.
Several runs on a side give it a spread of its own. Exit status: 0 when nothing got worse, 1 when
something did beyond its tolerance or broke, 2 when a run cannot be read, 3 when nothing got worse
but something of the base is no longer there to compare.
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from acceptance.judging.comparison import Change, Compared, Comparison, compare
from acceptance.judging.metrics import METRICS
from reports.observing import observations
from reports.reading import Results, read_results
from reports.ruling import facts_of
from reports.text import markdown as text_markdown
from reports.text import number, percent, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("change", "what", "before", "after", "unit", "ratio", "worse by", "allowed", "spread")
STYLES = {
    Change.REGRESSED: "bold red",
    Change.BROKE: "bold red",
    Change.VANISHED: "yellow",
    Change.IMPROVED: "green",
    Change.APPEARED: "cyan",
    Change.SHOWN: "dim",
    Change.SAME: "",
}
_QUIET = (Change.SAME, Change.SHOWN)
_WIDTH = 160  # characters, where the output is no terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the comparison and returns the exit status."""
    options = _parser().parse_args(argv)
    names = names_of(options.runs)
    read = {name: read_results(path) for name, path in zip(names, options.runs, strict=True)}
    unreadable = [n for n, results in read.items() if not observations(results, n)]
    if unreadable or not 0 < options.base < len(read):
        for name in unreadable:
            print(f"{name}: holds no judgements", file=sys.stderr)
        if not 0 < options.base < len(read):
            print(f"--base {options.base} of {len(read)} runs leaves a side empty", file=sys.stderr)
        return 2
    seen = [observations(results, name) for name, results in read.items()]
    base, new = chain(*seen[: options.base]), chain(*seen[options.base :])
    comparison = compare(base, new)
    notes = _notes(read, options.base, comparison)
    faults = _faults(read, names[options.base :])
    lines = [line for line in comparison.lines if _wanted(line, options.show)]
    if options.html is not None:
        from reports.comparepage import render_comparison  # here: it draws charts

        page = render_comparison(comparison, read, options.base, [*notes, *faults])
        options.html.write_text(page, encoding="utf-8")
    if options.markdown:
        print(markdown(lines, [*notes, *faults]), end="")
    else:
        _print(lines, [*notes, *faults])
    print(closing(comparison))
    if comparison.regressed:
        return 1
    return 0 if comparison.whole and not faults else 3


def closing(comparison: Comparison) -> str:
    """The counts, worst first: `2 regressed, 1 improved, 40 same`."""
    counts = {change: len(comparison.of(change)) for change in Change}
    told = [f"{count} {change.name.lower()}" for change, count in counts.items() if count]
    return ", ".join(told) or "nothing to compare"


def markdown(lines: Sequence[Compared], notes: Sequence[str]) -> str:
    """The comparison as Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(_cells(line) for line in lines)]
    table = [f"| {' | '.join(text_markdown(cell) for cell in row)} |" for row in rows]
    return "\n".join([*(f"- {text_markdown(note)}" for note in notes), "", *table, "", ""])


def _print(lines: Sequence[Compared], notes: Sequence[str]) -> None:
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    for note in notes:
        console.print(Text(visible(note, 400)))
    table = Table(*COLUMNS)
    for column in table.columns[2:]:
        column.justify = "right"
    for line in lines:
        table.add_row(*(Text(cell) for cell in _cells(line)), style=STYLES[line.change])
    if lines:
        console.print(table)


def _cells(line: Compared) -> tuple[str, ...]:
    what = f"{line.where}: {line.said}" if line.said else line.where
    spreads = " / ".join("–" if s is None else f"{s * 100:.1f} %" for s in line.spread)
    return (
        line.change.name.lower(),
        visible(what, 300),
        number(line.before),
        number(line.after),
        visible(line.unit, 40),
        "–" if line.ratio is None else f"{line.ratio:.3f}",
        percent(line.worse),
        "–" if line.tolerance is None else f"{line.tolerance * 100:.1f} %",
        spreads if any(s is not None for s in line.spread) else "–",
    )


def _wanted(line: Compared, show: str) -> bool:
    """speeds: what changed, and every metric that gates."""
    if show == "all" or line.change not in _QUIET:
        return True
    metric = METRICS.get(line.metric)
    return show == "speeds" and metric is not None and metric.gates and line.ratio is not None


def _notes(read: dict[str, Results], base: int, comparison: Comparison) -> list[str]:
    """Which run is which, and what differs besides the values."""
    notes = []
    for place, (name, results) in enumerate(read.items()):
        run = results.run
        side = "base" if place < base else "new "
        facts = (run.host, f"vllm {run.vllm}", f"suite {run.suite_commit[:12]}") if run else ()
        notes.append(f"{side} {name}: {', '.join(facts) or 'no identity'}")
    return [*notes, *(f"differs: {difference}" for difference in comparison.differs)]


def _faults(read: dict[str, Results], new: Sequence[str]) -> list[str]:
    """Unreadable lines of any run and errors of the new ones: values may be missing by them."""
    lines = []
    for name, results in read.items():
        faults = facts_of(results).faults if name in new else ()
        lines += [f"{name}: {fault.deployment or 'run'}: {fault.what}" for fault in faults]
        lines += [f"{name}: {problem}" for problem in results.problems]
    return lines


def folder_of(run: Path) -> Path:
    """Of a run that was given as its folder or as a file in it."""
    return run.resolve().parent if run.is_file() else run.resolve()


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short name for each run: its folder, with more of the path where two are called alike."""
    folders = list(map(folder_of, paths))
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [n if names.count(n) == 1 else f"{n}#{i + 1}" for i, n in enumerate(names)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports.compare", description="Compare recorded runs, cell by cell."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--base", type=int, default=1, metavar="N", help="first N runs are base")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page too")
    parser.add_argument(
        "--show",
        choices=("changes", "speeds", "all"),
        default="speeds",
        help="only what changed; also every gating metric (default); everything",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
