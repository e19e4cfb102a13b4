"""The course of a run: the sessions that it was put together from, and how long it took beside how
long it was expected to take."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.schema import EndRecord, EstimateRecord, JudgementRecord, RunRecord, Spent, TestRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reports.reading import Results
    from reports.schema import AnyRecord

WHOLE = "in all"


@dataclass(frozen=True)
class Session:
    """One session of a run: what was recorded from its begin to the next one's.

    ended: seconds since the epoch of its last record. end: its own last word; None where it has
    none. judged: checks that it judged; again: those of them that a later session ran again and
    replaced. goes_on: it is the last one, and may not be over.
    """

    number: int
    run: RunRecord
    ended: float
    end: EndRecord | None
    judged: int
    again: int
    goes_on: bool

    @property
    def seconds(self) -> float:
        """How long it took, as far as it is known."""
        return self.end.duration if self.end is not None else self.ended - self.run.time

    @property
    def how(self) -> str:
        """How it ended."""
        if self.end is None:
            told = "goes on, or was killed" if self.goes_on else "was killed"
            return f"{told}: it recorded no end"
        if not self.end.finished:
            return f"broke off before its last test, {self.end.word}"
        return f"reached its end, {self.end.word}"


def history(results: Results) -> list[Session]:
    """Every session, in order; those of a run that was never resumed are one."""
    runs = [record for record in results.records if isinstance(record, RunRecord)]
    kept = _by_session(results.records, runs)
    gone = _by_session(results.replaced, runs)
    made = []
    for number, run in enumerate(runs):
        mine = kept[number]
        again = _checks(gone[number]) - _checks(mine)
        made.append(
            Session(
                number=number + 1,
                run=run,
                ended=max((r.time for r in (*mine, *gone[number])), default=run.time),
                end=next((r for r in reversed(mine) if isinstance(r, EndRecord)), None),
                judged=len(_checks(mine) | again),
                again=len(again),
                goes_on=number == len(runs) - 1,
            )
        )
    return made


def _by_session(records: Iterable[AnyRecord], runs: Sequence[RunRecord]) -> list[list[AnyRecord]]:
    """Records by the session that wrote them: sessions of a run follow one another."""
    begins = [run.time for run in runs]
    made: list[list[AnyRecord]] = [[] for _ in runs]
    for record in records if made else ():
        made[max(0, bisect_right(begins, record.time) - 1)].append(record)
    return made


def _checks(records: Iterable[AnyRecord]) -> set[str]:
    """Node ids of the checks that were judged, or came to their end without a judgement."""
    return {
        r.check.nodeid or r.check.check
        for r in records
        if isinstance(r, JudgementRecord) or (isinstance(r, TestRecord) and r.phase == "call")
    }


@dataclass(frozen=True)
class Part:
    """A part of a deployment's time, or of all of them together. planned, done: how many starts or
    cells; None for other parts. expected, actual: seconds."""

    deployment: str
    name: str
    planned: int | None
    done: int | None
    expected: float
    actual: float
    finished: bool = True

    @property
    def times(self) -> float | None:
        """Seconds taken for each second expected; None where none was."""
        return self.actual / self.expected if self.expected > 0 else None


def parts(records: Sequence[AnyRecord]) -> list[Part]:
    """Starts, cells, other checks and the whole of each deployment, then of all where there are
    several.

    Of a resumed deployment it is what its first session expected, which planned all of it, against
    what all of them took. A session that was killed recorded neither.
    """
    found: dict[str, list[EstimateRecord]] = {}
    for record in records:
        if isinstance(record, EstimateRecord):
            found.setdefault(record.deployment, []).append(record)
    made: list[Part] = []
    for name, mine in found.items():
        made += _parts(name, mine[0].expected, _sum(r.actual for r in mine), mine[-1].finished)
    if len(found) > 1:
        expected = _sum(mine[0].expected for mine in found.values())
        actual = _sum(record.actual for mine in found.values() for record in mine)
        made += _parts("", expected, actual, all(mine[-1].finished for mine in found.values()))
    return made


def _sum(spent: Iterable[Spent]) -> Spent:
    total = dict.fromkeys(Spent.model_fields, 0.0)
    for one in spent:
        total = {name: value + getattr(one, name) for name, value in total.items()}
    return Spent.model_validate(total)


def _parts(deployment: str, expected: Spent, actual: Spent, finished: bool) -> Iterator[Part]:
    yield Part(
        deployment, "starts of servers", expected.starts, actual.starts,
        expected.start_seconds, actual.start_seconds,
    )  # fmt: skip
    if expected.cells or actual.cells:
        yield Part(
            deployment, "cells", expected.cells, actual.cells,
            expected.cell_seconds, actual.cell_seconds,
        )  # fmt: skip
    yield Part(deployment, "other checks", None, None, _other(expected), _other(actual))
    yield Part(
        deployment, WHOLE, None, None, expected.whole_seconds, actual.whole_seconds, finished
    )


def _other(spent: Spent) -> float:
    return max(0.0, spent.whole_seconds - spent.start_seconds - spent.cell_seconds)
