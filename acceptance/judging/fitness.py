"""Whether runs may be learnt from: right tokens, valid cells, and the same thing each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.judging.observed import Observed

TOKENS = ("correctness", "conformance")
HELD = (Outcome.PASS, Outcome.MARGINAL)


def unfit(
    observed: Sequence[Observed], *, repetitions: int, need_correctness: bool = True
) -> list[str]:
    """Everything that speaks against learning from these runs; empty when nothing does. observed:
    the last attempt of everything."""
    problems = []
    if repetitions < 2:
        problems.append(f"{repetitions} repetitions have no spread, at least 2 are needed")
    for name in dict.fromkeys(one.deployment for one in observed if one.deployment):
        mine = [one for one in observed if one.deployment == name]
        problems += _wrong(mine)
        problems += _mixed(name, mine)
        if mine[0].lane is Lane.REHEARSAL:
            problems.append(f"{name}: a rehearsal runs on a shared CPU, which measures no speed")
        right = any(one.area == "correctness" and one.outcome in HELD for one in mine)
        if need_correctness and not right:
            problems.append(f"{name}: nothing showed that its tokens are right")
    return problems


def _wrong(observed: Sequence[Observed]) -> list[str]:
    problems = []
    for one in observed:
        counted = one.judgement.limit is not None and one.judgement.limit.kind is Kind.EXPECTED
        if one.outcome is Outcome.FAIL and (one.area in TOKENS or counted):
            problems.append(f"{one.where} failed in {one.run}: {one.judgement.reason}")
        elif one.outcome is Outcome.INVALID or (_needed(one) and one.outcome is Outcome.NOT_RUN):
            what = "was invalid" if one.outcome is Outcome.INVALID else "was not run"
            problems.append(f"{one.where} {what} in {one.run}: {one.judgement.reason}")
    return problems


def _needed(one: Observed) -> bool:
    return one.judgement.required and one.area in ("performance", "correctness")


def _mixed(name: str, observed: Sequence[Observed]) -> list[str]:
    """What differs between runs that should be repetitions."""
    problems = []
    for fact in dict.fromkeys(fact for one in observed for fact in one.identity):
        values = dict.fromkeys(one.identity.get(fact, "") for one in observed)
        if len(values) > 1:
            problems.append(f"{name}: {fact} differs between the runs: {', '.join(values)}")
    return problems
