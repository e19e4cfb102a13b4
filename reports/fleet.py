"""`python -m reports.fleet RUN RUN…`: a fleet of like hosts from their run directories.

One run is one host. Each keeps the verdict of its own run; besides, hosts are held against one
another, and those that stand out from their peers are named, even where each passes alone. Exit
status: 0 when all are well, 1 when a host is REJECTED, INCOMPLETE or stands out, or there are too
few to tell, 2 when the arguments are not understood or no run holds a record.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from acceptance.deployments.schema import Lane
from acceptance.fleet.fleet import judge_fleet
from acceptance.fleet.thresholds import thresholds
from acceptance.judging.verdict import Verdict
from reports.compare import folder_of
from reports.fleethosts import hosts_of
from reports.fleetrows import EVIDENCE, evidence, headline, off, reasons, state
from reports.text import LANES, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.fleet.fleet import Fleet, Standing

_WIDTH = 160  # characters, where the output is no terminal
_SHOWN = 4  # values of each pattern, and reasons of each host; the page has them all


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the fleet and returns the exit status."""
    options = _parser().parse_args(argv)
    runs: list[Path] = options.runs
    if problem := _refused(runs, options.html):
        print(problem, file=sys.stderr)
        return 2
    limits = thresholds()
    hosts = hosts_of(runs, limits)
    if all(host.verdict is None for host in hosts):
        for host in hosts:
            print(f"{host.name}: {host.torn[0]}", file=sys.stderr)
        return 2
    fleet = judge_fleet(hosts, limits)
    if options.html is not None:
        from reports.fleetpage import render_fleet  # here: templates take a moment to import

        by_host = {host.name: run for host, run in zip(hosts, runs, strict=True)}
        page = render_fleet(fleet, by_host, options.html)
        options.html.write_text(page, encoding="utf-8")
    _print(fleet)
    print(headline(fleet))
    return 0 if fleet.well else 1


def _refused(runs: Sequence[Path], html: Path | None) -> str:
    """What is wrong with the arguments; empty when nothing is."""
    folders = list(map(folder_of, runs))
    there = [folder for folder, run in zip(folders, runs, strict=True) if run.exists()]
    if twice := next((folder for folder in there if there.count(folder) > 1), None):
        return f"{twice} is named twice: one run is one host"
    if html is not None and not html.resolve().parent.is_dir():
        return f"--html {html}: its folder does not exist"
    return ""


def _print(fleet: Fleet) -> None:
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    if fleet.lane not in (None, Lane.FULL):
        console.print(Text(LANES[fleet.lane]))
    for note in (*fleet.short, *fleet.notes):
        console.print(Text(visible(note, 400)))
    table = Table("host", "verdict", "why", title_justify="left")
    for one in fleet.standings:
        why = _cut(reasons(one))
        cells = (visible(one.host.name, 80), state(one), "\n".join(visible(w, 300) for w in why))
        table.add_row(*(Text(cell) for cell in cells), style=_style(one))
    console.print(table)
    for one in fleet.standings:
        if one.patterns:
            console.print(_evidence(one))
        for ahead in one.ahead[:_SHOWN]:
            told = f"{one.host.name} is better than its peers: {ahead.place} {off(ahead)}"
            console.print(Text(visible(told, 300), style="dim"))


def _evidence(standing: Standing) -> Table:
    """What a host stands out in, the farthest values of each pattern."""
    title = Text(f"{visible(standing.host.name, 80)} stands out")
    table = Table(*EVIDENCE, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for pattern in standing.patterns:
        for one in pattern.distances[:_SHOWN]:
            table.add_row(*(Text(visible(cell, 200)) for cell in evidence(one)))
        if (left := len(pattern.distances) - _SHOWN) > 0:
            table.add_row(Text(f"… {left} more of {pattern.trait} in {pattern.where}", style="dim"))
    return table


def _cut(lines: Sequence[str]) -> list[str]:
    left = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"… {left} more"] if left > 0 else [])]


def _style(standing: Standing) -> str:
    if standing.well:
        return ""
    if standing.patterns or standing.verdict is Verdict.REJECTED:
        return "bold red"
    return "yellow"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports.fleet", description="Judge a fleet of like hosts by their runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="one of each host")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
