"""Reading results.jsonl back, whatever state the run left it in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from reports.recorder import RESULTS
from reports.schema import RECORD, SCHEMA, AnyRecord, RunRecord, ServerRecord
from reports.sessions import standing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """A line that says nothing. line: counts from 1; 0 for the file itself."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"results.jsonl line {self.line}: {self.what}" if self.line else self.what


@dataclass(frozen=True)
class Results:
    """What a run left: the records that count, in order, and the lines that could not be read.
    replaced: records of a session that was broken off, of what a later one ran again."""

    records: tuple[AnyRecord, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    replaced: tuple[AnyRecord, ...] = ()

    @property
    def run(self) -> RunRecord | None:
        """Identity of the last invocation; None in an empty file."""
        runs = [record for record in self.records if isinstance(record, RunRecord)]
        return runs[-1] if runs else None

    @property
    def run_on(self) -> RunRecord | None:
        """The same, with the GPUs of a cluster's nodes, which only its servers' records tell."""
        return with_gpus(self.run, self.records)


def with_gpus(run: RunRecord | None, records: Sequence[AnyRecord]) -> RunRecord | None:
    """A run's identity, with the GPUs under its servers where it was on none of its own host."""
    servers = [record for record in records if isinstance(record, ServerRecord)]
    found = {gpu.uuid: gpu for server in servers for gpu in server.gpus}
    if run is None or run.gpus or not found:
        return run
    drivers = dict.fromkeys(gpu.driver for gpu in found.values())
    told = {"gpus": tuple(found.values()), "driver": ", ".join(filter(None, drivers)) or None}
    return run.model_copy(update=told)


def read_results(path: Path) -> Results:
    """The records of a run directory, or of a results.jsonl. Never raises for its content."""
    file = path / RESULTS if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        return Results(problems=(Problem(0, f"{file.name} cannot be read: {error.strerror}"),))
    records: list[AnyRecord] = []
    problems = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        read = _read(line)
        if isinstance(read, str):
            problems.append(Problem(number, read))
        else:
            records.append(read)
    kept, replaced = standing(records)
    return Results(tuple(kept), tuple(problems), tuple(replaced))


def _read(line: bytes) -> AnyRecord | str:
    """The record, or what is wrong with the line."""
    try:
        record = RECORD.validate_json(line)
    except ValidationError:
        return _misread(line)
    return record if "version" in record.model_fields_set else _misread(line)


def _misread(line: bytes) -> AnyRecord | str:
    """What is wrong with a line that pydantic's own parser of JSON, which is quick and strict about
    surrogates, did not take; the record after all where Python's parser does."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return "torn: its writer was stopped in the middle"
    if not isinstance(data, dict):
        return "unknown: not an object"
    if data.get("schema") != SCHEMA:
        return f"unknown: schema {data.get('schema')!r}, this suite reads {SCHEMA}"
    try:
        return RECORD.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"unknown: {where or 'record'}: {first['msg']}"
