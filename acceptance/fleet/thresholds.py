"""thresholds.toml: what makes a host stand out, as data with a source."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from acceptance.errors import InputError
from acceptance.judging.judgement import Frozen
from acceptance.judging.metrics import METRICS

DATA = Path(__file__).with_name("thresholds.toml")


class Trait(StrEnum):
    """In what a host stands out. SLOWER and JITTER come from the cells of the matrix."""

    SLOWER = "slower"
    JITTER = "jitter"
    LEAKING = "leaking"
    LESS_MEMORY = "less memory"


SPEED = (Trait.SLOWER, Trait.JITTER)


class Rule(Frozen):
    """How hosts are held against one another by one metric.

    higher: more is better. spread: least standard deviation of healthy values; least: what matters;
    both shares of the peers' median, in the metric's unit where absolute. ratio: of which two
    metrics of the same cell the value is made; empty for one that is recorded.
    """

    metric: str
    trait: Trait
    higher: bool
    spread: float = Field(gt=0)
    least: float = Field(gt=0)
    absolute: bool = False
    ratio: tuple[str, ...] = Field(default=(), max_length=2)
    source: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _declared(cls, told: dict[str, object]) -> dict[str, object]:
        """Direction and tolerance of a known metric are those of metrics.py, and only those."""
        known = METRICS.get(str(told.get("metric")))
        if known is None:
            return told
        if "higher" in told or "least" in told:
            raise ValueError(f"metrics.py declares direction and tolerance of {told['metric']}")
        return {**told, "higher": known.higher, "least": known.tolerance}


class Together(Frozen):
    """Cells of one workload taken together. fewest: cells. least: share, however many there are."""

    fewest: int = Field(ge=2)
    least: float = Field(gt=0)
    source: str = Field(min_length=1)


class Bounds(Frozen):
    """fewest: hosts, below which none can stand out. risk: that any host of a healthy fleet is
    named."""

    fewest: int = Field(ge=4)
    fewest_source: str = Field(min_length=1)
    risk: float = Field(gt=0, lt=1)
    risk_source: str = Field(min_length=1)


class Thresholds(Frozen):
    """All of the file."""

    fleet: Bounds
    together: Together
    rules: tuple[Rule, ...] = Field(alias="rule")

    @model_validator(mode="after")
    def _once(self) -> Thresholds:
        names = [rule.metric for rule in self.rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two rules of one metric: {', '.join(sorted(twice))}")
        return self


def load_thresholds(path: Path = DATA) -> Thresholds:
    """Reads a file of thresholds. Raises InputError when it is not understood."""
    try:
        return Thresholds.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{path}: {told}", asked="reading what makes a host stand out") from error


@cache
def thresholds() -> Thresholds:
    """thresholds.toml of this room."""
    return load_thresholds()
