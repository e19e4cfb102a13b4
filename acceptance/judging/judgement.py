"""What is said of one measurement, and the limit it was said by.

A judgement line carries everything needed to judge again later: value, unit, limit, source
(the idea is OCP ocp-diag's: limits travel inside the result).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Value = float | int | bool | str | None


class Outcome(StrEnum):
    """PASS and MARGINAL hold the limit; everything else is short of acceptance."""

    PASS = "PASS"
    MARGINAL = "MARGINAL"
    FAIL = "FAIL"
    UNGATED = "UNGATED"
    INVALID = "INVALID"
    NOT_RUN = "NOT_RUN"


class Kind(StrEnum):
    """How a reference limits a value: floor and ceiling are one-sided, baseline two-sided,
    bound is physical (crossing it makes the measurement INVALID), expected is equality."""

    FLOOR = "floor"
    CEILING = "ceiling"
    BASELINE = "baseline"
    BOUND = "bound"
    EXPECTED = "expected"


class Frozen(BaseModel):
    """Data that is never changed after it was made, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Broken(Frozen):
    """One validity rule that a measurement breaks. evidence: what was seen, for a person."""

    rule: str
    evidence: str


class Window(Frozen):
    """When a measurement was taken: seconds since the epoch, wall clock."""

    start: float
    end: float


class Measurement(Frozen):
    """A value with unit, samples, window and evidence. value None means it is missing, which is
    never a pass. broken: validity rules it breaks; any makes it INVALID."""

    name: str
    value: Value
    unit: str = ""
    samples: tuple[float, ...] = ()
    window: Window | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)
    broken: tuple[Broken, ...] = ()


class Limit(Frozen):
    """The limit a measurement was held against, already resolved to numbers in its unit.

    lower/upper: inclusive; None leaves that side open. expected: for equality.
    source: URL or path and revision; says where the number comes from.
    """

    kind: Kind
    lower: float | None = None
    upper: float | None = None
    expected: Value = None
    unit: str = ""
    source: str = Field(min_length=1)


class Judgement(Frozen):
    """One line of results.jsonl, without the run's context that the recorder adds.

    required: whether anything but PASS or MARGINAL keeps the verdict short of acceptance.
    margin: distance to the nearest limit as a share of the limit; negative beyond it.
    """

    outcome: Outcome
    measurement: Measurement
    limit: Limit | None = None
    margin: float | None = None
    reason: str = ""
    required: bool = True
