"""The noise floor of a server, and the tolerances that come from it by a declared rule."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.correctness.noninferiority import upper_bound
from acceptance.judging.judgement import Kind, Limit

if TYPE_CHECKING:
    from acceptance.correctness.compare import Agreement
    from acceptance.deployments.schema import Precision

DATA = Path(__file__).with_name("tolerances.toml")
PRECISION = "precision"  # the part that is what the checkpoint's own arithmetic makes of it
QUANTITIES = ("mean", "kl", "disagreement", "dnll")


def quantity(name: str, found: Agreement) -> float:
    """One number of an agreement, smaller for nearer."""
    if name == "disagreement":
        return 1 - found.same_best
    if name == "dnll":
        return upper_bound(found.dnll)
    return float(getattr(found, name))


@cache
def rules() -> dict[str, Any]:
    """tolerances.toml."""
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


@dataclass
class Floor:
    """What one server differs from itself by. parts: by how it was asked again ("repeat", "batch",
    "rank 1"), and "precision", what the checkpoint's own precision makes of it."""

    precision: Precision
    parts: dict[str, Agreement] = field(default_factory=dict)

    def noise(self, name: str) -> float:
        """The largest of a quantity over all parts. Infinite without any: nothing is excused."""
        values = [quantity(name, found) for found in self.parts.values()]
        return max(values) if values else math.inf

    def single(self, pair: Agreement) -> float:
        """The largest difference about one token between two answers of healthy servers: of this
        pair, or of the server with itself."""
        own = [found.worst for part, found in self.parts.items() if part != PRECISION]
        return max([pair.worst, *own])

    def limit(self, name: str, *, most: float | None = None, factor: float = 1.0) -> Limit:
        """The ceiling of a quantity between two servers. most: from a reference, instead of the
        declared one. factor: for noisier comparisons, applied last."""
        rule, precision = rules()["quantity"][name], self.precision.value
        least = rule["least"][precision]
        cap = rule["most"][precision] if most is None else most
        factors = dict.fromkeys(self.parts, rule["factor"])
        if PRECISION in factors:
            factors[PRECISION] = rule["of_precision"][precision]
        scaled = {p: factors[p] * quantity(name, found) for p, found in self.parts.items()}
        loudest = max(scaled, key=lambda part: scaled[part], default=None)
        upper = min(cap, max(least, scaled[loudest] if loudest else 0.0)) * factor
        noise = quantity(name, self.parts[loudest]) if loudest else 0.0
        told = (
            f"{factors[loudest] if loudest else rule['factor']:g} x this run's noise floor of "
            f"{noise:.3g} ({loudest or 'nothing measured'}; of {', '.join(self.parts) or 'none'}), "
            f"at least {least:g}, at most {cap:g}"
        )
        told += f", x {factor:g}" if factor != 1 else ""
        source = f"acceptance/correctness/{DATA.name}: {told}"
        return Limit(kind=Kind.CEILING, upper=upper, unit=rule["unit"], source=source)

    @property
    def told(self) -> str:
        """In one line, for the terminal."""
        parts = ", ".join(f"{name} {found.mean:.2g}" for name, found in self.parts.items())
        return f"mean |dlogp| {self.noise('mean'):.2g} nats ({parts})" if parts else "not measured"


def own_limit(name: str, precision: Precision) -> Limit:
    """What a server may differ from itself by at most."""
    return Limit(
        kind=Kind.CEILING,
        upper=rules()["self"][name][precision.value],
        unit=rules()["quantity"][name]["unit"],
        source=f"acceptance/correctness/{DATA.name}: one server against itself",
    )
