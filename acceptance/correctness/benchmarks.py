"""What accuracy.toml says of a benchmark."""

from __future__ import annotations

import fnmatch
import tomllib
from functools import cache
from pathlib import Path

from pydantic import Field

from acceptance.errors import InputError
from acceptance.judging.judgement import Frozen

DATA = Path(__file__).with_name("accuracy.toml")
SMOKE = 200  # questions


class Score(Frozen):
    """What healthy servers score. model: glob. score, margin: shares. n: questions behind it."""

    model: str
    score: float = Field(gt=0, le=1)
    n: int = Field(ge=1)
    margin: float = Field(gt=0, lt=1)
    source: str = Field(min_length=1)


class Benchmark(Frozen):
    """One table of accuracy.toml."""

    name: str
    task: str
    filter: str
    questions: int = Field(ge=1)
    shots: int = Field(ge=0)
    data: tuple[str, ...]
    tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    paired_margin: float = Field(gt=0, lt=1)
    reference: tuple[Score, ...] = ()

    def score_of(self, model: str) -> Score | None:
        """The reference of a model; of several globs that fit, the longest."""
        fits = [one for one in self.reference if fnmatch.fnmatchcase(model, one.model)]
        return max(fits, key=lambda one: len(one.model), default=None)

    def asked(self, tier: str) -> int:
        """Questions of a tier."""
        return min(SMOKE, self.questions) if tier == "smoke" else self.questions


@cache
def benchmarks() -> dict[str, Benchmark]:
    """All, by name."""
    tables = tomllib.loads(DATA.read_text(encoding="utf-8"))["benchmark"]
    return {name: Benchmark(name=name, **table) for name, table in tables.items()}


def benchmark(name: str) -> Benchmark:
    """One by its name. Raises InputError."""
    if name not in benchmarks():
        known = ", ".join(benchmarks())
        raise InputError(f"no benchmark is called {name}", asked="--accuracy", hint=known)
    return benchmarks()[name]
