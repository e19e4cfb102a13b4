"""Judging one measurement against one limit. Pure: the same input gives the same judgement."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from acceptance.judging.bounds import fraction_of_bound
from acceptance.judging.judgement import Judgement, Kind, Limit, Measurement, Outcome
from acceptance.judging.reference import Reference
from acceptance.judging.references import Match

if TYPE_CHECKING:
    from collections.abc import Sequence

MARGINAL = 0.02


def judge(
    measurement: Measurement,
    reference: Match | Reference | Limit | None,
    *,
    required: bool = True,
    marginal: float = MARGINAL,
    bounds: Sequence[Limit] = (),
    advisory: Sequence[Match] = (),
) -> Judgement:
    """Holds a measurement against its limit.

    A measurement that breaks a validity rule, is missing, or crosses a physical bound is INVALID:
    it cannot be judged, so it can never pass. Without a limit it is UNGATED. A value inside its
    limits is MARGINAL when it is nearer to one than `marginal` (a share of the limit), else PASS.

    bounds: physical limits, told apart from the reference that gates. A bound as `reference`
    alone gates nothing: the judgement is INVALID or UNGATED. An advisory reference shows how far
    the value is from it, and leaves the judgement UNGATED.
    advisory: further references that are only told of in the reason.
    required: what is only shown does not fail either: beyond its limit it is UNGATED.
    Raises ValueError when marginal is negative.
    """
    if not marginal >= 0:
        raise ValueError(f"marginal is a share of the limit, not {marginal}")
    limit = reference if reference is None or isinstance(reference, Limit) else reference.limit()
    why = reference.why if isinstance(reference, Match) else ""
    entry = reference.reference if isinstance(reference, Match) else reference
    advises = isinstance(entry, Reference) and entry.advisory
    beside = [match for match in advisory if match.reference is not entry]

    beyond = Outcome.FAIL if required else Outcome.UNGATED
    further: list[str] = []

    def said(outcome: Outcome, reason: str, margin: float | None = None) -> Judgement:
        return Judgement(
            outcome=outcome,
            measurement=measurement,
            limit=limit,
            margin=margin,
            reason="; ".join([f"{reason} ({why})" if why else reason, *further]),
            required=required,
        )

    if measurement.broken:
        told = "; ".join(f"{broken.rule}: {broken.evidence}" for broken in measurement.broken)
        return said(Outcome.INVALID, told)
    if missing := _missing(measurement):
        return said(Outcome.INVALID, missing)
    physical = [*bounds, *([limit] if limit is not None and limit.kind is Kind.BOUND else [])]
    for bound in physical:
        if crossed := _crossed(measurement, bound):
            limit = bound
            return said(Outcome.INVALID, crossed)
    further += _further(measurement, physical, beside)
    if limit is None or limit.kind is Kind.BOUND:
        return said(Outcome.UNGATED, "no reference gates it")
    if unfit := _unfit(measurement, limit):
        return said(Outcome.INVALID, unfit)
    if limit.kind is Kind.EXPECTED:
        told = f"{_show(measurement)}, expected {limit.expected!r}"
        if _equal(measurement.value, limit.expected):
            return said(Outcome.PASS, told)
        return said(beyond, told)

    value = float(measurement.value)  # type: ignore[arg-type]  # _unfit saw that it is a number
    sides = [side for side in (limit.lower, limit.upper) if side is not None]
    if not sides:
        return said(Outcome.UNGATED, "its reference holds no number")
    distance = margin(value, limit)
    told = f"{_show(measurement)}, {describe(limit)}"
    if advises:
        return said(Outcome.UNGATED, f"no reference gates it; advisory: {told}", distance)
    if not inside(value, limit):
        return said(beyond, told, distance)
    near = min((_share(abs(value - side), side) for side in sides if side != 0), default=math.inf)
    return said(Outcome.MARGINAL if near < marginal else Outcome.PASS, told, distance)


def _further(
    measurement: Measurement, bounds: Sequence[Limit], advisory: Sequence[Match]
) -> list[str]:
    """How near the value came to physics, and how far it is from what was reached elsewhere."""
    told = []
    shares = [share for b in bounds if (share := fraction_of_bound(measurement.value, b))]
    if shares:
        told.append(f"{max(shares):.1%} of what physics allows")
    for match in advisory:
        limit = match.limit()
        if not _unfit(measurement, limit):
            distance = margin(float(measurement.value), limit)  # type: ignore[arg-type]
            told.append(f"advisory: {describe(limit)}, {distance:+.1%} ({match.why})")
    return told


def inside(value: float, limit: Limit) -> bool:
    """Whether the value holds both sides of the limit, which are inclusive."""
    return (limit.lower is None or value >= limit.lower) and (
        limit.upper is None or value <= limit.upper
    )


def margin(value: float, limit: Limit) -> float:
    """Distance to the nearest side as a share of that side; negative beyond it.

    A side of zero has no share: the distance counts in the value's own unit. Always finite.
    Raises ValueError when the limit has no side.
    """
    shares = []
    if limit.lower is not None:
        shares.append(_share(value - limit.lower, limit.lower))
    if limit.upper is not None:
        shares.append(_share(limit.upper - value, limit.upper))
    return min(shares)


def describe(limit: Limit) -> str:
    """The limit in words: `at most 15.85 ms`."""
    if limit.kind is Kind.EXPECTED:
        return f"expected {limit.expected!r}"
    unit = f" {limit.unit}" if limit.unit else ""
    if limit.lower is not None and limit.upper is not None:
        return f"between {limit.lower:.6g} and {limit.upper:.6g}{unit}"
    if limit.lower is not None:
        return f"at least {limit.lower:.6g}{unit}"
    return f"at most {limit.upper:.6g}{unit}" if limit.upper is not None else "no number"


def _share(distance: float, side: float) -> float:
    share = distance / abs(side) if side else distance
    return max(-sys.float_info.max, min(sys.float_info.max, share))


def _show(measurement: Measurement) -> str:
    value = measurement.value
    unit = f" {measurement.unit}" if measurement.unit else ""
    if isinstance(value, float):
        return f"{value:.6g}{unit}"
    return f"{value!r}{unit}"


def _missing(measurement: Measurement) -> str:
    """Why there is no value to judge; empty when there is one."""
    value = measurement.value
    if value is None:
        return "the value is missing"
    if isinstance(value, float) and not math.isfinite(value):
        return f"the value is missing: {value}"
    return ""


def _crossed(measurement: Measurement, bound: Limit) -> str:
    """What makes the value impossible under this physical bound; empty when nothing does."""
    if unfit := _unfit(measurement, bound):
        return unfit
    if inside(float(measurement.value), bound):  # type: ignore[arg-type]
        return ""
    return f"{_show(measurement)} is not physically possible: {describe(bound)} ({bound.source})"


def _unfit(measurement: Measurement, limit: Limit) -> str:
    """Why the value and the limit cannot be compared; empty when they can."""
    if limit.unit and measurement.unit and limit.unit != measurement.unit:
        return f"the value is in {measurement.unit}, its limit in {limit.unit}"
    if limit.kind is Kind.EXPECTED:
        return "" if limit.expected is not None else "its limit expects nothing"
    value = measurement.value
    if isinstance(value, bool) or not isinstance(value, float | int):
        return f"{value!r} is not a number, its limit is: {describe(limit)}"
    try:
        float(value)
    except OverflowError:
        return "the value is too large to compare"
    if any(side is not None and not math.isfinite(side) for side in (limit.lower, limit.upper)):
        return "its limit is not a finite number"
    return ""


def _equal(value: object, expected: object) -> bool:
    """Equality that does not take True for 1."""
    return isinstance(value, bool) == isinstance(expected, bool) and value == expected
