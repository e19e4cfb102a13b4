"""Values against the few words of JSON Schema that the checks use."""

from __future__ import annotations

import json
from typing import Any

CHOICES = ("red", "green", "blue")
GRAMMAR_WORDS = ("north", "south")
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "array": (list,),
}


def schema_problems(text: str, schema: dict[str, Any]) -> list[str]:
    """Of a text that should be JSON of this schema: type, properties, required, enum,
    additionalProperties."""
    try:
        value = json.loads(text)
    except ValueError:
        return [f"no JSON: {text[:120]!r}"]
    return value_problems(value, schema)


def value_problems(value: Any, schema: dict[str, Any], where: str = "value") -> list[str]:
    """The same of a value."""
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where} is {value!r}, none of {schema['enum']}"]
    wanted = schema.get("type")
    if wanted and not isinstance(value, TYPES[wanted]):
        return [f"{where} is {value!r}, no {wanted}"]
    if not isinstance(value, dict):
        return []
    known = schema.get("properties", {})
    problems = [f"{where} lacks {name}" for name in schema.get("required", ()) if name not in value]
    if schema.get("additionalProperties") is False or known:
        problems += [f"{where} has {name} beyond the schema" for name in value if name not in known]
    for name, inner in known.items():
        if name in value:
            problems += value_problems(value[name], inner, f"{where}.{name}")
    return problems
