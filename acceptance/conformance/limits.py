"""Seconds that the checks allow, read from limits.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "limits.toml"


@cache
def limits() -> dict[str, float]:
    """By name. Raises KeyError for a row without seconds or source."""
    rows = tomllib.loads(DATA.read_text(encoding="utf-8"))
    return {name: float(row["seconds"]) for name, row in rows.items() if row["source"]}
