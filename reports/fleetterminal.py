"""A judged fleet on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from acceptance.deployments.schema import Lane
from acceptance.fleet.fleet import judge_fleet
from acceptance.fleet.thresholds import thresholds
from acceptance.judging.verdict import Verdict
from reports.fleetrows import EVIDENCE, evidence, headline, notes, off, reasons, state
from reports.text import LANES, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from acceptance.fleet.fleet import Fleet, Standing
    from acceptance.fleet.host import Host

_WIDTH = 160  # characters, where the output is no terminal
_SHOWN = 4  # values of each pattern, and reasons of each host; the page has them all


def tell(hosts: Sequence[Host], runs: Sequence[Path], html: Path | None) -> Fleet:
    """Judges a fleet, prints it and writes the page where one is asked for. runs: of the hosts."""
    fleet = judge_fleet(hosts, thresholds())
    if html is not None:
        from reports.fleetpage import render_fleet  # here: templates take a moment to import

        by_host = {host.name: run for host, run in zip(hosts, runs, strict=True)}
        html.write_text(render_fleet(fleet, by_host, html), encoding="utf-8")
    show(fleet)
    return fleet


def show(fleet: Fleet) -> None:
    """Prints the hosts, and what those that stand out do so in; the headline last."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    if fleet.lane not in (None, Lane.FULL):
        console.print(Text(LANES[fleet.lane]))
    for note in (*fleet.short, *notes(fleet)):
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
    print(headline(fleet))


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
    if not standing.named:
        return ""
    if standing.patterns or standing.verdict is Verdict.REJECTED:
        return "bold red"
    return "yellow"
