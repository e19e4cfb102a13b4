"""Checks that are not cells, grouped by what they ask of a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.judging.judge import describe
from acceptance.judging.judgement import Kind, Outcome
from reports import ruling
from reports.cells import WORST
from reports.exchanges import curl
from reports.schema import JudgementRecord, TestRecord
from reports.text import number

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from reports.schema import AnyRecord, Check, Exchange

AREAS = ("conformance", "correctness", "memory", "performance", "resilience")
HELD = (Outcome.PASS, Outcome.MARGINAL)


@dataclass(frozen=True)
class Asked:
    """One request and its answer. command: asks the same again; empty where it cannot. address:
    who answered, of a server that has several."""

    command: str
    request: str
    status: int
    response: str
    address: str


@dataclass(frozen=True)
class Row:
    """One judgement, or a check that did not run. expected, actual: in words. margin: a share.
    reason: why, where the values do not say it. source: of the limit."""

    area: str
    deployment: str
    check: str
    title: str
    outcome: Outcome
    required: bool
    reason: str = ""
    metric: str = ""
    expected: str = ""
    actual: str = ""
    source: str = ""
    margin: float | None = None
    attempt: int = 1
    asked: tuple[Asked, ...] = ()


@dataclass(frozen=True)
class Capability:
    """Rows of one file of checks."""

    area: str
    name: str
    rows: tuple[Row, ...]

    @property
    def short(self) -> int:
        """Rows that neither hold nor are merely shown."""
        return sum(row.outcome not in HELD and row.required for row in self.rows)


def capabilities(records: Sequence[AnyRecord], shown: Set[int] = frozenset()) -> list[Capability]:
    """Everything that was judged, in the order of the areas; the worst first. shown: ids of the
    record objects that are shown elsewhere, such as those of cells."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for record in records:
        if isinstance(record, JudgementRecord) and id(record) not in shown:
            key = record.check.area, _capability(record.check)
            groups.setdefault(key, []).append(row_of(record))
    checks = {r.check.nodeid: r.check for r in records if isinstance(r, TestRecord)}
    for skipped in ruling.not_run(records):
        check = checks.get(skipped.key.partition("|")[2])
        key = (check.area, _capability(check)) if check else ("", "other")
        groups.setdefault(key, []).append(
            Row(
                area=key[0],
                deployment=skipped.deployment,
                check=skipped.check,
                title=check.title if check else "",
                outcome=skipped.outcome,
                required=skipped.required,
                reason=skipped.reason,
            )
        )
    places = {area: place for place, area in enumerate(AREAS)}
    order = sorted(groups, key=lambda key: (places.get(key[0], 9), key[1]))
    return [
        Capability(area or "other", name, tuple(sorted(groups[area, name], key=_worst_first)))
        for area, name in order
    ]


def _worst_first(row: Row) -> tuple[bool, int, str, str]:
    return not row.required, WORST.index(row.outcome), row.check, row.deployment


def _capability(check: Check) -> str:
    """What a file of checks is about: `conformance/test_bad_input.py` is `bad input`."""
    file = check.check.split("::", 1)[0].rsplit("/", 1)[-1]
    return file.removesuffix(".py").removeprefix("test_").replace("_", " ") or "other"


def row_of(record: JudgementRecord) -> Row:
    """A judgement as a row."""
    judgement, check = record.judgement, record.check
    limit, measurement = judgement.limit, judgement.measurement
    value = number(measurement.value) if measurement.value is not None else ""
    expected = ""
    if limit is not None:
        told = limit.kind is Kind.EXPECTED
        expected = number(limit.expected) if told else describe(limit)
    plain = judgement.outcome in HELD
    return Row(
        area=check.area,
        deployment=check.deployment,
        check=ruling.label(check),
        title=check.title,
        outcome=judgement.outcome,
        required=judgement.required,
        reason="" if plain else judgement.reason,
        metric=measurement.name,
        expected=expected,
        actual=f"{value} {measurement.unit}".strip(),
        source=limit.source if limit else "",
        margin=judgement.margin,
        attempt=record.attempt,
        asked=tuple(_asked(exchange, plain) for exchange in record.exchanges),
    )


def _asked(exchange: Exchange, plain: bool) -> Asked:
    """Of a check that held, only the beginning is shown; results.jsonl has more."""
    command = curl(exchange)
    most = 400 if plain else 4000
    cut = exchange.response if len(exchange.response) <= most else exchange.response[:most] + " …"
    request = "" if command else exchange.request[:most]
    return Asked(command, request, exchange.status, cut, exchange.address)
