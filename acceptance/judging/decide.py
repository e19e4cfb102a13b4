"""The verdict of a run, from what was recorded of it and nothing else."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from acceptance.judging.judgement import Outcome
from acceptance.judging.verdict import (
    STRENGTH,
    WORDS,
    Facts,
    Judged,
    RunVerdict,
    Tally,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from acceptance.deployments.schema import Lane


def decide(facts: Facts) -> RunVerdict:
    """REJECTED when anything failed or broke; else INCOMPLETE when anything required is invalid,
    ungated or did not run, or the record is not whole; else the word of the lane."""
    judged = _latest(facts.judged)
    names = [selected.name for selected in facts.selected]
    names += [one.deployment for one in judged] + [fault.deployment for fault in facts.faults]
    lanes = {selected.name: selected.lane for selected in facts.selected}
    against: list[str] = []
    short: list[str] = list(facts.gaps)
    tallies = []
    for name in dict.fromkeys(names):
        mine = [one for one in judged if one.deployment == name]
        faults = [fault.what for fault in facts.faults if fault.deployment == name]
        failed, missing = _against(name, mine, faults), _short(name, mine, name in lanes)
        against, short = against + failed, short + missing
        tallies.append(_tally(name, lanes.get(name), mine, len(faults), failed, missing))
    if not facts.selected:
        short.append("no deployment was selected")
    if not facts.finished:
        short.append("the run did not reach its end")
    lane = min((s.lane for s in facts.selected), key=STRENGTH.index, default=None)
    if against:
        verdict = Verdict.REJECTED
    elif short or lane is None:
        verdict = Verdict.INCOMPLETE
    else:
        verdict = Verdict.ACCEPTED
    accepted = verdict is Verdict.ACCEPTED and lane is not None
    word = WORDS[lane] if accepted and lane is not None else verdict.value
    return RunVerdict(
        verdict=verdict, word=word, lane=lane, reasons=(*against, *short), tallies=tuple(tallies)
    )


def exit_status(verdict: RunVerdict, pytest_status: int) -> int:
    """pytest's own code, and 1 where pytest is content but the verdict is short."""
    return pytest_status if pytest_status or verdict.accepted else 1


def _latest(judged: Sequence[Judged]) -> list[Judged]:
    """Without the attempts that a later one replaces."""
    last = Counter[tuple[str, str, str]]()
    for one in judged:
        last[_key(one)] = max(last[_key(one)], one.attempt)
    retried = (Outcome.INVALID, Outcome.NOT_RUN)
    return [one for one in judged if one.outcome not in retried or one.attempt == last[_key(one)]]


def _key(one: Judged) -> tuple[str, str, str]:
    return one.deployment, one.key or one.check, one.metric


def _label(name: str) -> str:
    return name or "run"


def _against(name: str, judged: Iterable[Judged], faults: Iterable[str]) -> list[str]:
    lines = [f"{_label(name)}: {what}" for what in faults]
    for one in judged:
        if one.outcome is Outcome.FAIL:
            lines.append(f"{_label(name)}: {_what(one)} failed: {one.reason}")
    return lines


def _what(one: Judged) -> str:
    return f"{one.check} {one.metric}".strip()


_SAID = {
    Outcome.INVALID: "invalid",
    Outcome.UNGATED: "without a reference",
    Outcome.NOT_RUN: "not run",
}


def _short(name: str, judged: Sequence[Judged], selected: bool) -> list[str]:
    """What keeps this deployment from being whole; an equal reason is told once for all."""
    held = (Outcome.PASS, Outcome.MARGINAL, Outcome.FAIL)
    lines = []
    if selected and not any(one.outcome in held for one in judged):
        lines.append(f"{_label(name)}: nothing was judged against a limit")
    if name and not selected:
        lines.append(f"{name}: has results but was not selected")
    groups: dict[tuple[Outcome, str], list[str]] = {}
    for one in judged:
        if one.required and one.outcome in _SAID:
            groups.setdefault((one.outcome, _root(one)), []).append(_what(one))
    for outcome in _SAID:
        for (kind, reason), whats in groups.items():
            if kind is outcome:
                told = ", ".join(whats[:3])
                more = f" and {len(whats) - 3} more" if len(whats) > 3 else ""
                because = f": {reason}" if reason else ""
                lines.append(f"{_label(name)}: {told}{more} {_SAID[outcome]}{because}")
    return lines


def _root(one: Judged) -> str:
    """The reason, without the distances that make every ungated value's its own."""
    return one.reason.partition(";")[0] if one.outcome is Outcome.UNGATED else one.reason


def _tally(
    name: str,
    lane: Lane | None,
    judged: Sequence[Judged],
    errors: int,
    failed: Sequence[str],
    missing: Sequence[str],
) -> Tally:
    count = Counter(one.outcome for one in judged)
    gone = (Outcome.INVALID, Outcome.UNGATED, Outcome.NOT_RUN)
    verdict = Verdict.REJECTED if failed else Verdict.INCOMPLETE if missing else Verdict.ACCEPTED
    return Tally(
        deployment=name,
        lane=lane,
        verdict=verdict,
        passed=count[Outcome.PASS],
        marginal=count[Outcome.MARGINAL],
        failed=count[Outcome.FAIL],
        errors=errors,
        invalid=count[Outcome.INVALID],
        ungated=count[Outcome.UNGATED],
        not_run=count[Outcome.NOT_RUN],
        optional=sum(1 for one in judged if one.outcome in gone and not one.required),
    )
