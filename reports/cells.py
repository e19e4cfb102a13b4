"""The cells of the benchmark matrix as the report shows them, from their judgements and, where the
run's folder still holds them, from the files that the client left beside its numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acceptance.judging.judgement import Outcome
from acceptance.judging.references import find_advisory
from reports.cellevidence import ServerSide, beside_of, command_of, server_sides, told_of
from reports.schema import JudgementRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from acceptance.judging.judgement import Broken, Limit
    from acceptance.judging.reference import Reference
    from reports.schema import AnyRecord, SelectedDeployment

WORST = (
    Outcome.FAIL,
    Outcome.INVALID,
    Outcome.UNGATED,
    Outcome.NOT_RUN,
    Outcome.MARGINAL,
    Outcome.PASS,
)
_ENGINE = re.compile(r"\(([^,()]+), ([^,()]+(?:with attention DP)?)[,)]")


@dataclass(frozen=True)
class Anchor:
    """What somebody published of the same hardware: advisory, never gating. engine: who served."""

    engine: str
    layout: str
    interactivity: float
    throughput: float
    batch: int
    source: str


@dataclass(frozen=True)
class CellView:
    """One cell of one deployment: its last attempt.

    gpus: what its throughput is divided by, at least 1. records: by metric. evidence, servers,
    commands: as far as the run's folder tells them.
    """

    slug: str
    deployment: str
    cell: str
    workload: str
    batch: int
    gpus: int
    attempts: int
    outcome: Outcome
    records: dict[str, JudgementRecord]
    broken: tuple[Broken, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    evidence: tuple[tuple[str, str], ...] = ()
    servers: tuple[ServerSide, ...] = ()
    commands: tuple[str, ...] = ()
    shape: str = field(default="")

    def value(self, metric: str) -> float | None:
        """A measured number; None when it is missing."""
        record = self.records.get(metric)
        value = record.judgement.measurement.value if record else None
        return float(value) if isinstance(value, int | float) and value is not True else None

    def limit(self, metric: str) -> Limit | None:
        """The limit that a metric was judged by."""
        record = self.records.get(metric)
        return record.judgement.limit if record else None

    def samples(self, latency: str) -> tuple[float, ...]:
        """One value for each request, ms. latency: ttft, tpot or e2el."""
        record = self.records.get(f"{latency}_mean_ms")
        return record.judgement.measurement.samples if record else ()

    @property
    def throughput(self) -> float | None:
        """Output tokens per second and GPU."""
        told = self.value("output_throughput")
        return None if told is None else told / self.gpus

    @property
    def interactivity(self) -> float | None:
        """Tokens per second of one user: the inverse of the median time per output token."""
        return _per_second(self.value("tpot_median_ms"))

    @property
    def roofline(self) -> tuple[float, float] | None:
        """What memory bandwidth allows at this batch: interactivity, and throughput per GPU."""
        bounds = self._evidence.get("physical_bounds")
        told = bounds.get("tpot_mean_ms") if isinstance(bounds, dict) else None
        if not isinstance(told, int | float) or told <= 0:
            return None
        fast = 1000 / told
        return fast, fast * self.requests / self.gpus

    @property
    def requests(self) -> int:
        """How many it sent."""
        told = self._evidence.get("requests")
        return told if isinstance(told, int) else self.batch

    @property
    def engine_tokens(self) -> object:
        """The tokens of each engine as its evidence has them; see shares.py."""
        return self._evidence.get("engine_tokens")

    @property
    def _evidence(self) -> dict[str, Any]:
        first = next(iter(self.records.values()), None)
        return first.judgement.measurement.evidence if first else {}


def cell_views(
    records: Sequence[AnyRecord],
    selected: Iterable[SelectedDeployment],
    run_dir: Path | None,
    references: Callable[[], Sequence[Reference]],
) -> list[CellView]:
    """Every cell that any judgement speaks about, by deployment, workload and batch. references:
    published figures, asked for only when there are cells."""
    known = {deployment.name: deployment for deployment in selected}
    groups: dict[tuple[str, str, int], list[JudgementRecord]] = {}
    for record in records:
        if isinstance(record, JudgementRecord) and record.check.area == "performance":
            workload, batch = record.conditions.get("workload"), record.conditions.get("batch")
            if isinstance(workload, str) and isinstance(batch, int):
                key = record.check.deployment, workload, batch
                groups.setdefault(key, []).append(record)
    published = references() if groups else ()
    return [
        _view(*key, groups[key], known.get(key[0]), run_dir, published) for key in sorted(groups)
    ]


def _view(
    deployment: str,
    workload: str,
    batch: int,
    found: list[JudgementRecord],
    selected: SelectedDeployment | None,
    run_dir: Path | None,
    references: Sequence[Reference],
) -> CellView:
    attempts = max(record.attempt for record in found)
    last = {r.judgement.measurement.name: r for r in found if r.attempt == attempts}
    first = next(iter(last.values()))
    evidence = first.judgement.measurement.evidence
    cell = str(evidence.get("cell") or f"{workload}-b{batch}")
    required = [r.judgement.outcome for r in last.values() if r.judgement.required]
    outcomes = required or [r.judgement.outcome for r in last.values()]
    beside = beside_of(run_dir, evidence)
    return CellView(
        slug=re.sub(r"[^a-z0-9]+", "-", f"cell-{deployment}-{cell}".lower()),
        deployment=deployment,
        cell=cell,
        workload=workload,
        batch=batch,
        gpus=gpu_count(selected),
        attempts=attempts,
        outcome=min(outcomes, key=WORST.index),
        records=last,
        broken=tuple(
            dict.fromkeys(b for r in last.values() for b in r.judgement.measurement.broken)
        ),
        anchors=_anchors(deployment, first, selected, references),
        evidence=tuple(told_of(evidence)),
        servers=tuple(server_sides(last, beside)),
        commands=tuple(command_of(one) for one in beside if one.get("argv")),
        shape=f"{evidence.get('requests', batch)} × {evidence.get('isl', '?')}"
        f"/{evidence.get('osl', '?')}",
    )


def gpu_count(selected: SelectedDeployment | None) -> int:
    """GPUs of a deployment as its record tells them; 1 for a CPU."""
    count, x, _ = (selected.gpus if selected else "").partition("x")
    return int(count) if x and count.isdigit() and int(count) else 1


def _per_second(milliseconds: float | None) -> float | None:
    return 1000 / milliseconds if milliseconds else None


def _anchors(
    deployment: str,
    record: JudgementRecord,
    selected: SelectedDeployment | None,
    references: Sequence[Reference],
) -> tuple[Anchor, ...]:
    """Published points of this very cell: those with both numbers from one source."""
    gpus, found = gpu_count(selected), []
    speeds = {
        match.reference.source: match.reference.floor or match.reference.baseline
        for match in find_advisory(references, deployment, "output_throughput", **record.conditions)
    }
    for match in find_advisory(references, deployment, "tpot_median_ms", **record.conditions):
        entry = match.reference
        speed, tpot = speeds.get(entry.source), entry.ceiling or entry.baseline
        if speed and tpot:
            told = _ENGINE.search(entry.source)
            found.append(
                Anchor(
                    engine=told[1] if told else "published elsewhere",
                    layout=told[2] if told else "",
                    interactivity=1000 / tpot,
                    throughput=speed / gpus,
                    batch=int(record.conditions["batch"]),
                    source=entry.source,
                )
            )
    return tuple(found)
