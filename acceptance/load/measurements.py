"""A cell's numbers as measurements: the recipe's metrics, named and with units."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from acceptance.judging.judgement import Broken, Measurement, Window
from acceptance.load.counters import PREEMPTED
from acceptance.load.goodput import CONSTRAINTS, goodput
from acceptance.load.validity import check, unobserved
from acceptance.serving.metrics import GENERATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.load.cellrun import CellRun
    from acceptance.load.result import BenchResult, Latency

COUNTS = {
    "successful_requests": "requests",
    "input_tokens": "tokens",
    "generated_tokens": "tokens",
}
SPEEDS = {
    "duration_s": "s",
    "request_throughput": "req/s",
    "output_throughput": "tok/s",
    "total_token_throughput": "tok/s",
}
LATENCIES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "median", "p99")


def measurements(runs: Sequence[CellRun]) -> dict[str, Measurement]:
    """All measurements of a cell by name: COUNTS, SPEEDS, goodput_<constraint> and
    <latency>_<statistic>_ms. runs: its repeats; of several the median is taken, of counts the
    least. Every one carries the broken rules of the whole cell. A number that no successful
    request stands behind is None, although the tool writes 0 for it.
    """
    each = [_of_one(run) for run in runs]
    if len(each) == 1:
        return each[0]
    return {name: _together(runs, [one[name] for one in each]) for name in each[0]}


def _together(runs: Sequence[CellRun], made: list[Measurement]) -> Measurement:
    """One measurement of several repeats. samples: of all; window: from the first to the last."""
    first = made[0]
    values = [one.value for one in made if isinstance(one.value, int | float)]
    value: float | None = None
    if len(values) == len(made):
        value = min(values) if first.name in COUNTS else statistics.median(values)
    return first.model_copy(
        update={
            "value": value,
            "samples": tuple(sample for one in made for sample in one.samples),
            "window": Window(start=runs[0].window.start, end=runs[-1].window.end),
            "evidence": first.evidence
            | {
                "statistic": f"{'least' if first.name in COUNTS else 'median'} of {len(made)} runs",
                "values": [one.value for one in made],
                "results": [one.evidence["result"] for one in made],
                "seeds": [one.evidence["seed"] for one in made],
            },
            "broken": tuple(
                Broken(rule=broken.rule, evidence=f"run {number}: {broken.evidence}")
                for number, one in enumerate(made, 1)
                for broken in one.broken
            ),
        }
    )


def _of_one(run: CellRun) -> dict[str, Measurement]:
    result, broken, evidence = run.result, check(run), _evidence(run)

    def make(name: str, value: float | None, unit: str, samples: tuple[float, ...] = ()) -> None:
        found[name] = Measurement(
            name=name,
            value=value,
            unit=unit,
            samples=samples,
            window=run.window,
            evidence=evidence,
            broken=broken,
        )

    found: dict[str, Measurement] = {}
    counts = (result.completed, result.total_input_tokens, result.total_output_tokens)
    for (name, unit), count in zip(COUNTS.items(), counts, strict=True):
        make(name, count, unit)
    speeds = (
        result.duration,
        result.request_throughput,
        result.output_throughput,
        result.total_token_throughput,
    )
    for (name, unit), speed in zip(SPEEDS.items(), speeds, strict=True):
        make(name, _real(speed, result), unit)
    for constraint in CONSTRAINTS:
        good = goodput(result, constraint) if result.completed else None
        make(f"goodput_{constraint.name}", good, "req/s")
    samples = _samples(result)
    for latency in LATENCIES:
        told: Latency = getattr(result, latency)
        for statistic in STATISTICS:
            value = _real(getattr(told, statistic), result)
            make(f"{latency}_{statistic}_ms", value, "ms", samples.get(latency, ()))
    return found


def _real(value: float, result: BenchResult) -> float | None:
    """None for a number that means "nothing was measured": NaN, infinite, or not above zero."""
    measured = result.completed > 0 and math.isfinite(value) and value > 0
    return value if measured else None


def _samples(result: BenchResult) -> dict[str, tuple[float, ...]]:
    """Per-request values in ms. ITL is left out: it has one for every chunk, in the tool's file."""
    seconds = {
        "ttft": result.good_ttfts(),
        "tpot": result.good_tpots(),
        "e2el": result.good_latencies(),
    }
    return {name: tuple(value * 1000 for value in values) for name, values in seconds.items()}


def _evidence(run: CellRun) -> dict[str, Any]:
    cell, preempted = run.cell, run.growth(PREEMPTED)
    return {
        "deployment": cell.deployment,
        "lane": run.lane,
        "cell": cell.id,
        "workload": cell.workload,
        "batch": cell.nominal,
        "requests": cell.batch,
        "isl": cell.isl,
        "osl": cell.osl,
        "seed": cell.seed,
        "sampling": run.sampling,
        "load_engine": run.engine.value,
        "client": run.client.model_dump(),
        "result": f"cells/{run.result_file.name}",
        "warm_up_waves_s": run.warmup.waves,
        "warm_up_steady": run.warmup.steady,
        "engine_tokens": run.growth(GENERATED),
        "preemptions": None if preempted is None else sum(preempted.values()),
        "queued": run.queued,
        "runs_at_once": None if run.capacity is None else run.capacity.fits,
        "peak_running": run.peak_running,
        "physical_bounds": {name: limit.lower for name, limit in run.bounds.items()},
        "unobserved_rules": unobserved(run),
    }
