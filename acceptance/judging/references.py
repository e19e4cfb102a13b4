"""References: the numbers that measurements are held against, as data with a source.

A TOML file holds `[[reference]]` tables. Each names a deployment (a glob), a metric, exactly one
of floor, ceiling, baseline, bound or expected, and where the number comes from. The most specific
entry that matches a measurement wins, and says why it won. The same file may hold `[[xfail]]`
tables, known failures, which known.py reads.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from acceptance.errors import InputError
from acceptance.judging.judgement import Kind, Limit
from acceptance.judging.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic_core import ErrorDetails

SHIPPED = Path(__file__).parents[2] / "fixtures" / "references"
TABLES = ("reference", "xfail")


@dataclass(frozen=True)
class Match:
    """The reference that a measurement is judged by, and why this one."""

    reference: Reference
    why: str

    def limit(self) -> Limit:
        """The reference's limit."""
        return self.reference.limit()


def find(
    references: Iterable[Reference], deployment: str, metric: str, **conditions: Any
) -> Match | None:
    """The most specific reference of this metric; None when there is none.

    One that gates beats an advisory one, which leaves the judgement UNGATED. Then an exact
    deployment name beats a pattern; then more conditions beat fewer; then the longer text of the
    pattern; then the later entry. Physical bounds do not gate: see find_bounds.
    """
    found = [
        (_rank(entry, deployment), number, entry)
        for number, entry in enumerate(references)
        if entry.applies(deployment, metric, conditions) and entry.kind is not Kind.BOUND
    ]
    fits = [fit for fit in found if not fit[2].advisory] or found
    if not fits:
        return None
    _, _, best = max(fits, key=lambda fit: fit[:2])
    return Match(best, _why(best, len(fits)))


def find_advisory(
    references: Iterable[Reference], deployment: str, metric: str, **conditions: Any
) -> list[Match]:
    """Every advisory reference of this metric, to be shown beside the one that gates."""
    return [
        Match(entry, _why(entry, 1))
        for entry in references
        if entry.advisory and entry.applies(deployment, metric, conditions)
    ]


def _why(best: Reference, fits: int) -> str:
    told = [f"deployment {best.deployment}"]
    told += [f"{k} {v}" for k, v in (("workload", best.workload), ("batch", best.batch)) if v]
    told += [f"{key} {value}" for key, value in best.conditions.items()]
    why = f"{best.file or 'reference'}: {', '.join(told)}"
    return why + (f"; the most specific of {fits}" if fits > 1 else "")


def find_bounds(
    references: Iterable[Reference], deployment: str, metric: str, **conditions: Any
) -> list[Limit]:
    """Every physical bound that applies: crossing any makes a measurement INVALID."""
    return [
        entry.limit()
        for entry in references
        if entry.applies(deployment, metric, conditions) and entry.kind is Kind.BOUND
    ]


def _rank(entry: Reference, deployment: str) -> tuple[bool, int, int]:
    literal = len([c for c in entry.deployment if c not in "*?[]"])
    return entry.deployment == deployment, entry.constraints, literal


def load_references(paths: Sequence[Path] = ()) -> list[Reference]:
    """The shipped references, then those of `paths` (files, or folders of .toml files), in order.

    Raises InputError naming the file, the entry and the key for anything not understood.
    """
    return [entry for file in reference_files(paths) for entry in load_file(file)]


def reference_files(paths: Sequence[Path] = ()) -> list[Path]:
    """The shipped files, then `paths` with folders replaced by their .toml files. Raises InputError
    for a path that is not there."""
    files: list[Path] = []
    for path in (SHIPPED, *paths):
        if not path.exists():
            raise InputError(f"no such references file: {path}", asked="reading references")
        files += sorted(path.glob("*.toml")) if path.is_dir() else [path]
    return files


def read_tables(file: Path, table: str) -> list[Any]:
    """The entries of one kind of table in a references file. Raises InputError."""
    asked = f"reading references from {file}"
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:  # more than TOMLDecodeError
        raise InputError(f"{file}: {error}", asked=asked) from error
    for key in data:
        if key not in TABLES:
            hint = "use [[reference]], or [[xfail]] for a known failure"
            raise InputError(f"{file}: unknown key {key!r}", asked=asked, hint=hint)
    entries = data.get(table, [])
    if not isinstance(entries, list):
        raise InputError(f"{file}: {table} is not a list", asked=asked, hint=f"use [[{table}]]")
    return entries


def load_file(file: Path) -> list[Reference]:
    """The references of one file. Raises InputError."""
    asked = f"reading references from {file}"
    entries = read_tables(file, "reference")
    loaded: dict[tuple[object, ...], Reference] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{file}, reference {number}"
        try:
            made = Reference.model_validate({**entry, "file": file.name})
        except ValidationError as error:
            raise refused(where, error.errors(), Reference, asked) from error
        except TypeError as error:
            raise InputError(f"{where}: is not a table", asked=asked) from error
        if "file" in entry:
            raise InputError(f"{where}: unknown key 'file'", asked=asked)
        if (twin := loaded.setdefault(identity(made), made)) is not made:
            raise InputError(
                f"{where}: says the same thing as an earlier entry again: "
                f"{twin.kind} {twin.metric} of {twin.deployment}",
                asked=asked,
                hint="keep one of the two, or tell them apart by a condition",
            )
    return list(loaded.values())


def identity(entry: Reference) -> tuple[object, ...]:
    """What an entry is about. A file says each thing once."""
    bound = entry.side if entry.kind is Kind.BOUND else None
    conditions = tuple(sorted((k, repr(v)) for k, v in entry.conditions.items()))
    return entry.deployment, entry.metric, entry.workload, entry.batch, conditions, bound


def refused(
    where: str, errors: Sequence[ErrorDetails], model: type[BaseModel], asked: str
) -> InputError:
    """What pydantic has against an entry, as the error that a person reads. A key nobody knows is
    told first: it is often why another is missing."""
    error = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        about = f" {key}:" if key else ""
        return InputError(f"{where}:{about} {error['msg']}", asked=asked)
    known = [name for name in model.model_fields if name != "file"]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return InputError(f"{where}: unknown key {key!r}", asked=asked, hint=hint)
