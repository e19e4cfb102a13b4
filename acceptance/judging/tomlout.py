"""Writing references files: a header, then tables of plain values. Nothing else of TOML."""

from __future__ import annotations

import datetime
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from acceptance.judging.reference import Reference

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ORDER = ("deployment", "conditions", "workload", "batch", "metric")


def toml_text(header: str, tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """A TOML document: header as comments, then each entry as `[[name]]`. Values are text,
    numbers, booleans, dates, and tables of these, which are written inline. None is left out.
    Raises TypeError for any other value."""
    parts = ["\n".join(f"# {line}".rstrip() for line in header.splitlines())] if header else []
    for name, entries in tables.items():
        for entry in entries:
            lines = [f"{_key(k)} = {_value(v)}" for k, v in entry.items() if v is not None]
            parts.append("\n".join([f"[[{_key(name)}]]", *lines]))
    return "\n\n".join(parts) + "\n" if parts else ""


def reference_table(entry: Reference) -> dict[str, Any]:
    """An entry as a references file holds it, without what is left at its default."""
    told = entry.model_dump(exclude_defaults=True, exclude_none=True, exclude={"file"})
    first = {name: told.pop(name) for name in _ORDER if name in told}
    return {**first, **told}


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    raise TypeError(f"{value!r} has no form in a references file")


def _text(value: str) -> str:
    """A basic string: JSON's escapes are TOML's too, and DEL is escaped besides."""
    whole = value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are no text
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
