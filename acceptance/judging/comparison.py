"""Two groups of runs, cell by cell: what got worse, what got better, what came and went.

The first group is the base. Which way is better is declared for each metric (metrics.py), never
guessed from its name. A change counts when it is beyond the spread of the runs themselves, pooled
with the public one, and beyond the metric's own tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from acceptance.judging.judgement import Outcome
from acceptance.judging.metrics import METRICS
from acceptance.judging.observed import last_attempts
from acceptance.judging.spread import center, tolerance, variation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from acceptance.judging.observed import Observed

HELD = (Outcome.PASS, Outcome.MARGINAL)


class Change(IntEnum):
    """What became of one value, in the order in which it is told.

    BROKE: a required check that held now fails, or cannot be judged. VANISHED, APPEARED: no valid
    value now, or before. SHOWN: changed, but no direction is declared for its metric, or it does
    not gate: not at all, or not here.
    """

    REGRESSED = 0
    BROKE = 1
    VANISHED = 2
    IMPROVED = 3
    APPEARED = 4
    SHOWN = 5
    SAME = 6


@dataclass(frozen=True)
class Compared:
    """One value in both groups. before, after: medians, None for none. ratio: after to before.
    worse: share by which it got worse; negative when it got better; None without a direction.
    tolerance: share by which it may. spread: standard deviation of the base's runs as a share, and
    of the others'; None for fewer than two. said: outcomes and reasons, where they matter."""

    change: Change
    where: str
    deployment: str
    metric: str
    unit: str
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    worse: float | None = None
    tolerance: float | None = None
    spread: tuple[float | None, float | None] = (None, None)
    said: str = ""


@dataclass(frozen=True)
class Comparison:
    """lines: regressions first, the worst of them first. differs: what is not the same in both
    groups besides the values, such as the vLLM version."""

    lines: tuple[Compared, ...]
    differs: tuple[str, ...]

    def of(self, *changes: Change) -> tuple[Compared, ...]:
        """The lines of these kinds."""
        return tuple(line for line in self.lines if line.change in changes)

    @property
    def regressed(self) -> bool:
        """Whether anything got worse beyond tolerance, or broke."""
        return bool(self.of(Change.REGRESSED, Change.BROKE))

    @property
    def whole(self) -> bool:
        """Whether everything of the base could be compared: nothing vanished, and there was
        something at all. What is not there any more may have been what got worse."""
        held = self.of(Change.REGRESSED, Change.BROKE, Change.SAME, Change.IMPROVED, Change.SHOWN)
        return not self.of(Change.VANISHED) and bool(held)


def compare(base: Iterable[Observed], new: Iterable[Observed]) -> Comparison:
    """Compares the runs of two groups. Each may hold one run or several."""
    old, now = _keyed(base), _keyed(new)
    keys = dict.fromkeys([*old, *now])
    lines = [_compared(old.get(key, []), now.get(key, [])) for key in keys]
    lines.sort(key=lambda line: (line.change, -(line.worse or 0.0), line.where))
    return Comparison(tuple(lines), tuple(_differences(old, now)))


def _keyed(observed: Iterable[Observed]) -> dict[tuple[object, ...], list[Observed]]:
    keyed: dict[tuple[object, ...], list[Observed]] = {}
    for one in last_attempts(observed):
        keyed.setdefault(one.key, []).append(one)
    return keyed


def _compared(old: Sequence[Observed], now: Sequence[Observed]) -> Compared:
    seen = (now or old)[0]
    before, after = _numbers(old), _numbers(now)
    here = Compared(
        change=Change.SAME,
        where=seen.where,
        deployment=seen.deployment,
        metric=seen.metric,
        unit=seen.judgement.measurement.unit,
        before=center(before) if before else None,
        after=center(after) if after else None,
        spread=(variation(before), variation(after)),
    )
    if not old:
        return _with(here, Change.APPEARED)
    if not now:
        return _with(here, Change.VANISHED, said="not in the new runs")
    if broke := _broke(old, now):
        return _with(here, Change.BROKE, said=broke)
    if before and not after:
        return _with(here, Change.VANISHED, said=_outcomes(now))
    if after and not before:
        return _with(here, Change.APPEARED, said=f"was {_outcomes(old)}")
    if not (before and after):
        return here
    # What its lane does not gate, such as speed on a shared CPU, is no regression either.
    required = all(one.judgement.required for one in (*old, *now))
    return _measured(here, before, after, required)


def _measured(
    here: Compared, before: Sequence[float], after: Sequence[float], required: bool
) -> Compared:
    """Of two numbers, whether the second is worse than chance explains."""
    first, second = center(before), center(after)
    metric = METRICS.get(here.metric)
    if first == 0:
        return here if second == 0 else _with(here, Change.SHOWN, said="was 0")
    ratio = second / first
    if metric is None:
        return _with(here, Change.SAME if ratio == 1 else Change.SHOWN, ratio=ratio)
    worse = (first - second if metric.higher else second - first) / abs(first)
    allowed = tolerance(metric, before, others=after)
    # No fall is larger than 1, so beyond a tolerance of 1 the factor counts, as it does for a rise.
    fell = metric.higher and allowed >= 1 and first > (1 + allowed) * second
    change, gates = Change.SAME, metric.gates and required
    if worse > allowed or fell:
        change = Change.REGRESSED if gates else Change.SHOWN
    elif -worse > allowed:
        change = Change.IMPROVED if gates else Change.SHOWN
    return _with(here, change, ratio=ratio, worse=worse, tolerance=allowed)


def _broke(old: Sequence[Observed], now: Sequence[Observed]) -> str:
    """Why a required check that held in every run of the base does not hold in the new ones."""
    if not all(one.outcome in HELD for one in old):
        return ""
    bad = [
        one
        for one in now
        if one.judgement.required and one.outcome in (Outcome.FAIL, Outcome.INVALID)
    ]
    return f"{bad[0].outcome} in {bad[0].run}: {bad[0].judgement.reason}" if bad else ""


def _numbers(observed: Sequence[Observed]) -> list[float]:
    return [one.number for one in observed if one.number is not None]


def _outcomes(observed: Sequence[Observed]) -> str:
    last = observed[-1]
    return f"{last.outcome}: {last.judgement.reason}" if last.judgement.reason else last.outcome


def _differences(
    old: dict[tuple[object, ...], list[Observed]], now: dict[tuple[object, ...], list[Observed]]
) -> list[str]:
    """Facts of identity that the two groups do not share, by deployment."""
    facts: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for side, group in enumerate((old, now)):
        for one in (one for seen in group.values() for one in seen):
            for fact, value in one.identity.items():
                sides = facts.setdefault((one.deployment, fact), ({}, {}))
                sides[side][value] = None
    told: dict[str, list[str]] = {}
    for (deployment, fact), (before, after) in facts.items():
        if before and after and before != after:
            change = f"{fact}: {', '.join(before)} -> {', '.join(after)}"
            told.setdefault(change, []).append(deployment or "run")
    return [f"{', '.join(names)}: {change}" for change, names in told.items()]


def _with(line: Compared, change: Change, **more: object) -> Compared:
    return Compared(**{**vars(line), "change": change, **more})
