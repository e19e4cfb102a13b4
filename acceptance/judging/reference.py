"""One reference: a number a metric is held against, where it applies, and where it comes from."""

from __future__ import annotations

import datetime  # noqa: TC003 (pydantic needs it at run time)
import fnmatch
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from acceptance.judging.judgement import Frozen, Kind, Limit, Value

Condition = str | int | float | bool


class Reference(Frozen):
    """One entry of a references file.

    deployment: glob over deployment names. workload, batch, conditions: further things that must
    hold for the entry to apply; what is left out matches anything. Text in conditions is a glob.
    floor, ceiling, baseline, bound, expected: exactly one, in `unit`.
    tolerance: share of the number that is granted on each side that limits (0.05 is 5 %).
    lower, upper: tolerance of a baseline below and above it, where the two differ.
    side: of a bound; `lower` when nothing can be below it, `upper` when nothing can be above.
    advisory: shown, and gates nothing: what the hardware did elsewhere, or what spreads too far.
    source: URL, or path and revision. date: of the source.
    spread, repetitions: of a calibrated number: its standard deviation as a share, over how many
    runs.
    reason: why the number was changed by hand or loosened; it stays with the entry.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    deployment: str = Field(min_length=1)
    metric: str = Field(min_length=1)
    workload: str | None = None
    batch: int | None = Field(default=None, ge=1)
    floor: float | None = None
    ceiling: float | None = None
    baseline: float | None = None
    bound: float | None = None
    expected: Value = None
    tolerance: float = Field(default=0.0, ge=0)
    lower: float | None = Field(default=None, ge=0)
    upper: float | None = Field(default=None, ge=0)
    side: Literal["lower", "upper"] | None = None
    unit: str = ""
    advisory: bool = False
    spread: float | None = Field(default=None, ge=0)
    repetitions: int | None = Field(default=None, ge=1)
    reason: str = ""
    source: str = Field(min_length=1)
    conditions: dict[str, Condition] = Field(default_factory=dict)
    date: datetime.date | None = None
    file: str = Field(default="", exclude=True)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        given = [kind.value for kind in Kind if getattr(self, kind.value) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(Kind)}; has {given or 'none'}")
        sides = self.lower is not None or self.upper is not None
        if self.kind is not Kind.BASELINE and sides:
            raise ValueError("lower and upper are tolerances of a baseline; use tolerance")
        if self.kind is Kind.BASELINE and not (self.tolerance or sides):
            raise ValueError("a baseline needs tolerance, or lower and upper")
        if self.kind is Kind.BASELINE and sides and None in (self.lower, self.upper):
            raise ValueError("a baseline has two sides: give lower and upper, or tolerance")
        if (self.kind is Kind.BOUND) != (self.side is not None):
            raise ValueError("a bound needs side = 'lower' or 'upper'; nothing else has one")
        if self.kind in (Kind.BOUND, Kind.EXPECTED) and self.advisory:
            raise ValueError("only a floor, ceiling or baseline can be advisory")
        if self.kind is Kind.EXPECTED and self.tolerance:
            raise ValueError("expected is equality; use baseline for a value with tolerance")
        if self.kind is not Kind.EXPECTED and not self.unit:
            raise ValueError("needs a unit ('ratio' or 'count' where there is none)")
        return self

    @cached_property
    def kind(self) -> Kind:
        """Which of floor, ceiling, baseline, bound and expected this entry is."""
        return next(kind for kind in Kind if getattr(self, kind.value) is not None)

    @property
    def constraints(self) -> int:
        """How many things besides deployment and metric must hold."""
        return (self.workload is not None) + (self.batch is not None) + len(self.conditions)

    def limit(self) -> Limit:
        """The limit in the reference's unit, tolerance already granted."""
        source = f"{self.source} [{self.file}]" if self.file else self.source
        if self.kind is Kind.EXPECTED:
            return Limit(kind=self.kind, expected=self.expected, unit=self.unit, source=source)
        number = float(getattr(self, self.kind.value))
        below = abs(number) * (self.tolerance if self.lower is None else self.lower)
        above = abs(number) * (self.tolerance if self.upper is None else self.upper)
        has_lower = self.kind in (Kind.FLOOR, Kind.BASELINE) or self.side == "lower"
        has_upper = self.kind in (Kind.CEILING, Kind.BASELINE) or self.side == "upper"
        return Limit(
            kind=self.kind,
            lower=number - below if has_lower else None,
            upper=number + above if has_upper else None,
            unit=self.unit,
            source=source,
        )

    def applies(self, deployment: str, metric: str, conditions: dict[str, Any]) -> bool:
        """Whether this entry speaks about that metric of that deployment."""
        if self.metric != metric:
            return False
        wanted: dict[str, Condition] = dict(self.conditions)
        if self.workload is not None:
            wanted["workload"] = self.workload
        if self.batch is not None:
            wanted["batch"] = self.batch
        return fnmatch.fnmatchcase(deployment, self.deployment) and all(
            key in conditions and holds(conditions[key], w) for key, w in wanted.items()
        )


def holds(actual: object, wanted: Condition) -> bool:
    """Whether a condition is met: text as a glob, anything else by equality and type."""
    if isinstance(wanted, str):
        return isinstance(actual, str) and fnmatch.fnmatchcase(actual, wanted)
    return isinstance(actual, bool) == isinstance(wanted, bool) and actual == wanted
