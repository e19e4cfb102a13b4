"""A run's key figures in Prometheus's text format, for dashboards that follow them over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from acceptance.judging.judgement import Outcome
from acceptance.judging.metrics import METRICS
from reports.facts import gpu_hours, lasted
from reports.memory import capacities
from reports.ruling import verdict_of
from reports.schema import JudgementRecord, ServerRecord

if TYPE_CHECKING:
    from pathlib import Path

    from reports.reading import Results

FILE = "metrics.prom"
_COUNTS = ("passed", "marginal", "failed", "errors", "invalid", "ungated", "not_run")


def write_metrics(run_dir: Path, results: Results) -> Path:
    """Writes metrics.prom into the run's folder."""
    registry = CollectorRegistry()
    _of_run(registry, results)
    _of_cells(registry, results)
    _of_servers(registry, results)
    path = run_dir / FILE
    write_to_textfile(str(path), registry)
    return path


def _of_run(registry: CollectorRegistry, results: Results) -> None:
    verdict, run = verdict_of(results), results.run_on
    lane = verdict.lane.value if verdict.lane else ""
    said = Gauge(
        "acceptance_verdict", "1 for the word it ended with", ("word", "lane"), registry=registry
    )
    said.labels(verdict.word, lane).set(1)
    held = Gauge(
        "acceptance_held",
        "Whether everything held that its lane asks",
        ("lane",),
        registry=registry,
    )
    held.labels(lane).set(verdict.accepted)
    counts = Gauge(
        "acceptance_judgements",
        "Judgements by outcome, errors among them",
        ("deployment", "lane", "outcome"),
        registry=registry,
    )
    for tally in verdict.tallies:
        for outcome in _COUNTS:
            own = tally.lane.value if tally.lane else ""
            counts.labels(tally.deployment, own, outcome).set(getattr(tally, outcome))
    if run is None:
        return
    info = Gauge(
        "acceptance_run_info",
        "Always 1; who ran what",
        ("host", "vllm", "driver", "suite", "tier"),
        registry=registry,
    )
    suite = f"{run.suite_version} {run.suite_commit}".strip()
    info.labels(run.host, run.vllm or "", run.driver or "", suite, run.tier).set(1)
    for name, what, value in (
        ("acceptance_run_timestamp_seconds", "When it began, since the epoch", run.time),
        ("acceptance_run_duration_seconds", "How long it took", lasted(results)),
        ("acceptance_run_gpu_hours", "Hours times GPUs held", gpu_hours(results.records)),
    ):
        Gauge(name, what, registry=registry).set(value)


def _of_cells(registry: CollectorRegistry, results: Results) -> None:
    """The last attempt of every metric that has a direction."""
    cells = Gauge(
        "acceptance_cell",
        "A number of one cell of the benchmark matrix, in its metric's unit",
        ("deployment", "lane", "profile", "workload", "batch", "metric"),
        registry=registry,
    )
    for record in results.records:
        if not isinstance(record, JudgementRecord) or "workload" not in record.conditions:
            continue
        measurement, check = record.judgement.measurement, record.check
        value = measurement.value
        valid = record.judgement.outcome is not Outcome.INVALID
        if measurement.name in METRICS and isinstance(value, int | float) and valid:
            lane = check.lane.value if check.lane else ""
            where = (str(record.conditions[name]) for name in ("workload", "batch"))
            cells.labels(check.deployment, lane, check.profile, *where, measurement.name).set(value)


def _of_servers(registry: CollectorRegistry, results: Results) -> None:
    phases = Gauge(
        "acceptance_startup_seconds",
        "Seconds of a start-up phase, of the last start",
        ("deployment", "profile", "phase"),
        registry=registry,
    )
    for record in results.records:
        if isinstance(record, ServerRecord) and record.outcome == "ready":
            for phase, seconds in record.phases.items():
                phases.labels(record.deployment, record.profile, phase).set(seconds)
    tokens = Gauge(
        "acceptance_kv_cache_tokens", "Capacity", ("deployment", "engine"), registry=registry
    )
    for one in capacities(results.records):
        if one.tokens is not None:
            tokens.labels(one.deployment, one.engine).set(one.tokens)
    free = Gauge(
        "acceptance_headroom_gib",
        "Least free memory of a GPU",
        ("deployment", "gpu", "phase"),
        registry=registry,
    )
    for record in results.records:
        if isinstance(record, JudgementRecord):
            measurement = record.judgement.measurement
            if measurement.name == "headroom_gib" and isinstance(measurement.value, int | float):
                gpu = str(measurement.evidence.get("gpu", ""))
                phase = str(record.conditions.get("phase", ""))
                free.labels(record.check.deployment, gpu, phase).set(measurement.value)
