"""How the generated tokens were shared out among a deployment's engines, by the server's counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.load.validity import ENGINE_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.cells import CellView


@dataclass(frozen=True)
class Share:
    """One engine. tokens: over all cells; share: of all engines' tokens; bar: of the largest share.
    least: its smallest share of any cell that had a request for every engine, with that cell's
    name; None where none had."""

    engine: str
    tokens: float
    share: float
    bar: float
    least: float | None
    cell: str


@dataclass(frozen=True)
class Shares:
    """One deployment. cells: that tell. fair: what each engine has when all have the same. floor:
    below it an engine counts as starved."""

    deployment: str
    cells: int
    fair: float
    floor: float
    engines: tuple[Share, ...]


def shares(cells: Sequence[CellView]) -> list[Shares]:
    """Of every deployment with more than one engine, as far as its cells tell."""
    found: dict[str, list[tuple[CellView, dict[str, float]]]] = {}
    for cell in cells:
        tokens = tokens_of(cell.engine_tokens)
        if len(tokens) > 1 and sum(tokens.values()) > 0:
            found.setdefault(cell.deployment, []).append((cell, tokens))
    return [_of(deployment, told) for deployment, told in found.items()]


def tokens_of(told: object) -> dict[str, float]:
    """The tokens of each engine as evidence has them; empty where it has something else."""
    if not isinstance(told, dict):
        return {}
    known = {str(k): float(v) for k, v in told.items() if isinstance(v, int | float)}
    whole = len(known) == len(told)
    return known if whole and all(math.isfinite(v) and v >= 0 for v in known.values()) else {}


def _of(deployment: str, told: list[tuple[CellView, dict[str, float]]]) -> Shares:
    names = sorted({name for _, tokens in told for name in tokens}, key=_order)
    done = {name: sum(tokens.get(name, 0.0) for _, tokens in told) for name in names}
    whole, largest = sum(done.values()), max(done.values())
    asked = [(cell, tokens) for cell, tokens in told if cell.requests >= len(names)]
    engines = []
    for name in names:
        parts = [(each.get(name, 0.0) / sum(each.values()), cell.cell) for cell, each in asked]
        least, cell = min(parts, default=(None, ""))
        tokens = done[name]
        engines.append(Share(name, tokens, tokens / whole, tokens / largest, least, cell))
    fair = 1 / len(names)
    return Shares(deployment, len(told), fair, ENGINE_SHARE * fair, tuple(engines))


def _order(name: str) -> tuple[str, int, str]:
    """By address, then by number: 2 before 10."""
    number, _, address = name.partition("@")
    return address, int(number) if number.isdecimal() else 0, number
