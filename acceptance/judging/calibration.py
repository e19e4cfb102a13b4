"""A site's own references, from repeated runs that are known to be good.

Every speed of every cell becomes a baseline: the median of the repetitions, with a tolerance that
their spread and public experience ask for (spread.py). Nothing is written from runs whose tokens
were wrong, that were not valid, or that are not repetitions of one another. A limit that exists is
made tighter, never looser, unless a person says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.errors import InputError
from acceptance.judging.fitness import unfit
from acceptance.judging.judge import describe, inside
from acceptance.judging.metrics import METRICS
from acceptance.judging.observed import last_attempts
from acceptance.judging.reference import Reference
from acceptance.judging.references import find, identity, load_file, read_tables
from acceptance.judging.spread import center, tolerance, variation
from acceptance.judging.tomlout import reference_table, toml_text

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from acceptance.judging.judgement import Limit
    from acceptance.judging.metrics import Metric
    from acceptance.judging.observed import Observed

REPETITIONS = 5
# A run better than its baseline by more than half is not believed before somebody looked at it.
BETTER = 0.5
# A spread that asks for more than three times a metric's usual tolerance gates nothing.
WIDEST = 3.0
_SHOWN = 8

HEADER = """\
Written by calibration from repeated runs. Entries are replaced by the next calibration, and other
entries kept; comments are not kept. advisory entries are shown and gate nothing."""


@dataclass(frozen=True)
class Calibration:
    """references: what the runs say. notes: for people, what was kept, rebased or cannot gate."""

    references: tuple[Reference, ...]
    notes: tuple[str, ...] = ()


def calibrate(
    observed: Iterable[Observed],
    *,
    today: datetime.date,
    repetitions: int = REPETITIONS,
    existing: Sequence[Reference] = (),
    rebaseline: str = "",
    need_correctness: bool = True,
) -> Calibration:
    """References for every gating speed and every P99 in the runs.

    existing: what is in force now, shipped references too. Where a new limit would be looser than
    the one in force, that limit stays, provided that the runs hold it; if they do not, calibration
    is refused. rebaseline: the reason for looser limits, which stays in the entries it concerns.
    need_correctness: refuse runs that judged no tokens at all.
    Raises InputError naming everything that speaks against the runs.
    """
    everything = last_attempts(observed)
    problems = unfit(everything, repetitions=repetitions, need_correctness=need_correctness)
    made: list[Reference] = []
    notes: list[str] = []
    for values in _cells(everything).values():
        metric = METRICS[values[0].metric]
        numbers = [one.number for one in values if one.number is not None]
        if len(values) < repetitions or len(numbers) < len(values):
            problems.append(f"{values[0].where}: {len(numbers)} values, needs {repetitions}")
            continue
        if center(numbers) <= 0:
            notes.append(f"{values[0].where}: {center(numbers):.6g} is no baseline")
            continue
        entry = _entry(values, metric, numbers, today)
        kept, said, refused = _against(existing, entry, metric, values[0], rebaseline, today)
        made += [kept]
        notes += said
        problems += refused
    if not made and not problems:
        problems.append("there is no speed in them")
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise InputError(
            "these runs make no references: " + "; ".join([*problems[:_SHOWN], *more]),
            asked="calibration",
            hint="repeat the runs; to accept slower ones, rebaseline with a reason",
        )
    return Calibration(tuple(made), tuple(notes))


def save(path: Path, calibration: Calibration) -> None:
    """Writes the references to a file, keeping its entries about other things and its known
    failures. Raises InputError when there is a file that is not understood."""
    references = load_file(path) if path.exists() else []
    known = read_tables(path, "xfail") if path.exists() else []
    merged = {identity(entry): entry for entry in references}
    merged |= {identity(entry): entry for entry in calibration.references}
    tables = {"reference": [reference_table(entry) for entry in merged.values()], "xfail": known}
    try:
        text = toml_text(HEADER, tables)
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path}: an xfail entry is not understood: {error}") from error
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _cells(observed: Iterable[Observed]) -> dict[tuple[object, ...], list[Observed]]:
    """Of everything that may become a reference, one value of each run."""
    cells: dict[tuple[object, ...], dict[str, Observed]] = {}
    for one in observed:
        metric = METRICS.get(one.metric)
        if metric and (metric.gates or one.metric.endswith("_p99_ms")):
            profile = one.conditions.get("profile")
            key = one.deployment, profile, one.workload, one.batch, one.metric
            cells.setdefault(key, {})[one.run] = one
    return {key: list(runs.values()) for key, runs in cells.items()}


def _entry(
    values: Sequence[Observed], metric: Metric, numbers: Sequence[float], today: datetime.date
) -> Reference:
    first = values[0]
    worse = tolerance(metric, numbers)
    better = max(worse, BETTER)
    gates = metric.gates and worse <= WIDEST * metric.tolerance
    profile = first.conditions.get("profile")
    spread = variation(numbers)
    about = ", ".join(f"{name} {value}" for name, value in first.identity.items() if value)
    return Reference(
        deployment=first.deployment,
        metric=first.metric,
        workload=first.workload or None,
        batch=first.batch,
        conditions={"profile": str(profile)} if profile else {},
        baseline=_rounded(center(numbers)),
        lower=_rounded(worse if metric.higher else better),
        upper=_rounded(better if metric.higher else worse),
        unit=first.judgement.measurement.unit or "ratio",
        advisory=not gates,
        spread=None if spread is None else _rounded(spread),
        repetitions=len(numbers),
        reason="" if gates == metric.gates else "spreads too far to gate",
        source=f"calibrated: median of runs {', '.join(one.run for one in values)}; {about}",
        date=today,
    )


def _against(
    existing: Sequence[Reference],
    entry: Reference,
    metric: Metric,
    seen: Observed,
    rebaseline: str,
    today: datetime.date,
) -> tuple[Reference, list[str], list[str]]:
    """The entry that is to be in force, what to tell of it, and why it must not be."""
    told = [f"{seen.where}: spreads too far to gate"] if entry.advisory and metric.gates else []
    conditions = {**seen.conditions, "workload": entry.workload, "batch": entry.batch}
    found = find(existing, entry.deployment, entry.metric, **conditions)
    if found is None or found.reference.advisory:
        return entry, told, []
    old, before, after = found.reference, found.limit(), entry.limit()
    same = identity(old) == identity(entry)
    if same and old.reason:
        entry = entry.model_copy(update={"reason": _joined(old.reason, entry.reason)})
    looser = same if entry.advisory else _looser(metric, before, after)
    if not looser:
        return entry, told, []
    was = f"{describe(before)}, would be {describe(after)}"
    if rebaseline:
        reason = _joined(entry.reason, f"{today}: {rebaseline} (was {describe(before)})")
        return entry.model_copy(update={"reason": reason}), [f"{seen.where}: rebased: {was}"], []
    if entry.baseline is None or not inside(entry.baseline, before):
        return entry, [], [f"{seen.where}: {entry.baseline} does not hold {describe(before)}"]
    kept = old if entry.advisory else _clipped(entry, metric, before)
    return kept, [f"{seen.where}: the limit stays: {was}"], []


def _clipped(entry: Reference, metric: Metric, before: Limit) -> Reference:
    """The entry with the worse side where it was before."""
    number, side = entry.baseline or 0.0, before.lower if metric.higher else before.upper
    if side is None:
        return entry
    share = abs(side - number) / number
    granted = max(0.0, math.floor(share * 1e6 - 1e-6) / 1e6)  # rounded to the strict side
    return entry.model_copy(update={"lower" if metric.higher else "upper": granted})


def _looser(metric: Metric, before: Limit, after: Limit) -> bool:
    """Whether a worse value would be let through than before."""
    old, new = (before.lower, after.lower) if metric.higher else (before.upper, after.upper)
    if old is None or new is None:
        return old is not None
    return new < old if metric.higher else new > old


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
