"""Every line of a results.jsonl against the JSON Schema that the repository ships."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = Path(__file__).parents[2] / "reports" / "results.schema.json"


@cache
def validator() -> Any:
    """Of one line. Skips the test where jsonschema is not installed."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    made = jsonschema.validators.validator_for(schema)
    made.check_schema(schema)
    return made(schema)


def problems(lines: Iterable[str]) -> list[str]:
    """What the schema has against each line."""
    found = []
    for number, line in enumerate(lines, 1):
        for error in validator().iter_errors(json.loads(line)):
            found.append(f"line {number}: {error.json_path}: {error.message[:200]}")
    return found
