"""The server's own counts around a cell, from /metrics: what the client's are checked against."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydantic import Field

from acceptance.errors import ObservationError
from acceptance.judging.judgement import Frozen
from acceptance.serving.metrics import GENERATED, scrape

if TYPE_CHECKING:
    from acceptance.load.target import Target

SUCCEEDED = "vllm:request_success_total"
CACHE_HITS = "vllm:prefix_cache_hits_total"
PREEMPTED = "vllm:num_preemptions_total"
SERVER_TTFT = "vllm:time_to_first_token_seconds"
SERVER_ITL = "vllm:inter_token_latency_seconds"
# Of a simulated server alone: how late its first tokens were against its own schedule.
SIMULATED_LATE = "simulation:first_token_late_seconds"


def _parts(*histograms: str) -> tuple[str, ...]:
    return tuple(f"{name}_{part}" for name in histograms for part in ("sum", "count"))


HISTOGRAMS = _parts(SERVER_TTFT, SERVER_ITL)
NEEDED = (GENERATED, SUCCEEDED, CACHE_HITS)
WANTED = (*NEEDED, PREEMPTED, *HISTOGRAMS)
OWN = _parts(SIMULATED_LATE)  # read where they are, and missed nowhere

SETTLED_WITHIN = 5.0  # seconds
SETTLED_APART = 0.2


class Counters(Frozen):
    """One reading. values: metric, then engine number as in the label, to count. missing: metric
    to why it could not be read."""

    values: dict[str, dict[str, float]] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)


def read_counters(target: Target) -> Counters:
    """Reads /metrics once. Never raises: what cannot be read is listed as missing."""
    try:
        metrics = scrape(target)
    except ObservationError as error:
        return Counters(missing=dict.fromkeys(WANTED, error.happened))
    values, missing = {}, {}
    for name in (*WANTED, *OWN):
        try:
            values[name] = metrics.by_engine(name)
        except ObservationError as error:
            if name in WANTED:
                missing[name] = error.happened
    return Counters(values=values, missing=missing)


def settled_counters(
    target: Target, within: float = SETTLED_WITHIN, expected: float | None = None
) -> Counters:
    """A reading that a second one agrees with: the engine reports a step's tokens only after the
    client has them. After `within` seconds the last reading is taken, agreed with or not.

    expected: generated tokens in all that there must be now; a reading that has them is settled.
    """
    limit = time.monotonic() + within
    last = read_counters(target)
    while last.values and time.monotonic() < limit:
        if expected is not None and generated(last) == expected:
            break
        time.sleep(SETTLED_APART)
        again = read_counters(target)
        if again == last:
            break
        last = again
    return last


def generated(counters: Counters) -> float | None:
    """Generated tokens of all engines together; None when they could not be read."""
    found = counters.values.get(GENERATED)
    return sum(found.values()) if found else None


def growth(before: Counters, after: Counters, name: str) -> dict[str, float] | None:
    """How much a counter grew, per engine; None when a reading lacks it. An engine that one
    reading lacks counts from zero; see the rule engine-restarted."""
    old, new = before.values.get(name), after.values.get(name)
    if old is None or new is None:
        return None
    return {
        engine: new.get(engine, 0.0) - old.get(engine, 0.0) for engine in sorted(old | new, key=str)
    }
