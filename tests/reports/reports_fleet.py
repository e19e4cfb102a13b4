"""Made-up fleets: runs of like hosts whose numbers lie as far apart as public repeats do.

Each cell of a fleet is as quiet or as loud as some public configuration (acceptance/judging/
metrics.py names the source): its coefficients of variation are the median, the 90th percentile or
the largest of all. Nothing was measured.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.load.workloads import Tier, cell_ids
from reports.reading import Results
from reports.recorder import RESULTS
from reports.ruling import closing
from reports.schema import Check, GpuIdentity, JudgementRecord, RunRecord, SelectedDeployment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reports.schema import AnyRecord

NAME = "fp8-8xh200-tp-ep"
GPUS = 8
# Throughput, TPOT, P99 of TPOT, TTFT, P99 of TTFT, P99 of ITL; ranges as standard deviations of
# six runs. Then how many of ten cells are so loud.
LOUDNESS = (
    (0.004, 0.003, 0.008, 0.045, 0.047, 0.019),
    (0.012, 0.009, 0.024, 0.108, 0.156, 0.072),
    (0.021, 0.020, 0.103, 0.172, 0.346, 0.124),
)
SHARES = (5, 4, 1)


@dataclass(frozen=True)
class Ill:
    """What is wrong with a host. slow: workload in which it takes 15 % longer. jitter: its slowest
    tokens take 60 % longer. leaks: GiB of one GPU in the matrix. dead: it broke off."""

    slow: str = ""
    jitter: bool = False
    leaks: float = 0.0
    dead: bool = False


WELL = Ill()


def host_records(
    host: str,
    *,
    fleet: int = 0,
    ill: Ill = WELL,
    lane: Lane = Lane.FULL,
    vllm: str = "0.32.0",
    digest: str = "abc",
) -> tuple[AnyRecord, ...]:
    """The record of one host. fleet: seed of what all its hosts share."""
    rng = random.Random(f"{fleet}/{host}")
    run = RunRecord(
        time=1.0,
        suite_version="0.1.0",
        suite_commit="0123456789abcdef",
        host=host,
        vllm=vllm,
        gpus=(GpuIdentity(name="NVIDIA H200"),) * GPUS,
        deployments=(SelectedDeployment(name=NAME, digest=digest, lane=lane),),
        tier="gate",
    )
    records: list[AnyRecord] = [run]
    for cell in cell_ids(Tier.GATE):
        records += _cell(cell, _loudness(fleet, cell), rng, ill, lane)
        if ill.dead and cell.endswith("b64"):
            return tuple(records)
    records += _memory(rng, ill, lane)
    end = closing(Results(tuple(records)), finished=True, pytest_status=0, duration=9.0)
    return (*records, end.model_copy(update={"time": 10.0}))


def write_host(folder: Path, records: tuple[AnyRecord, ...]) -> Path:
    """The records as a run's directory."""
    folder.mkdir(parents=True)
    lines = (record.model_dump_json(by_alias=True) + "\n" for record in records)
    (folder / RESULTS).write_text("".join(lines), encoding="utf-8")
    return folder


@cache
def _loudness(fleet: int, cell: str) -> tuple[float, ...]:
    return random.Random(f"{fleet}/{cell}").choices(LOUDNESS, SHARES)[0]


def _cell(
    cell: str, loudness: tuple[float, ...], rng: random.Random, ill: Ill, lane: Lane
) -> Iterator[JudgementRecord]:
    workload, _, batch = cell.rpartition("-b")
    speed, token, slowest, first, latest, gap = (rng.gauss(1.0, cv) for cv in loudness)
    longer = 1.15 if ill.slow == workload else 1.0
    ragged = 1.6 if ill.jitter else 1.0
    tpot = (12.0 + int(batch) / 8) * max(token, 0.5) * longer
    ttft = 60.0 * (1 + int(batch) / 4) * max(first, 0.3) * longer
    values = {
        "output_throughput": 1000.0 * int(batch) / (12.0 + int(batch) / 8) * speed / longer,
        "tpot_mean_ms": tpot * 1.01 * rng.gauss(1.0, 0.001),
        "tpot_median_ms": tpot,
        "tpot_p99_ms": tpot * 1.1 * max(slowest, 0.6) * ragged,
        "ttft_mean_ms": ttft * 1.1,
        "ttft_median_ms": ttft,
        "ttft_p99_ms": ttft * 2.0 * max(latest, 0.2),
        "itl_median_ms": tpot * 0.99,
        "itl_p99_ms": tpot * 1.4 * max(gap, 0.5) * ragged,
    }
    check = Check(
        deployment=NAME,
        lane=lane,
        profile="benchmark",
        area="performance",
        check="performance/test_matrix.py::test_x",
        variant=cell,
        nodeid=f"suites/performance/test_matrix.py::test_x[{NAME}-{cell}]",
    )
    conditions = {"workload": workload, "batch": int(batch)}
    for metric, value in values.items():
        yield _judged(check, metric, value, "tok/s" if "put" in metric else "ms", conditions)


def _memory(rng: random.Random, ill: Ill, lane: Lane) -> Iterator[JudgementRecord]:
    for test, metric, value in (
        ("headroom_over_load", "headroom_gib", 6.1),
        ("memory_does_not_grow", "growth_gib", 0.6),
        ("memory_does_not_grow", "late_growth_gib", 0.0),
    ):
        name = f"memory/test_headroom.py::test_{test}"
        check = Check(
            deployment=NAME,
            lane=lane,
            profile="benchmark",
            area="memory",
            check=name,
            nodeid=f"suites/{name}[{NAME}]",
        )
        for gpu in range(GPUS):
            leak = ill.leaks if gpu == 3 else 0.0
            seen = value + rng.gauss(0.0, 0.01) + (-leak if metric == "headroom_gib" else leak)
            yield _judged(check, metric, seen, "GiB", {}, gpu=f"GPU {gpu}")


def _judged(
    check: Check, metric: str, value: float, unit: str, conditions: dict[str, object], **more: str
) -> JudgementRecord:
    """Well within its limit: a host that stands out passes all the same."""
    limit = Limit(kind=Kind.CEILING, upper=100.0 + 2 * abs(value), unit=unit, source="made up")
    measured = Measurement(name=metric, value=value, unit=unit, evidence=dict(more))
    return JudgementRecord(
        time=2.0, check=check, judgement=judge(measured, limit), conditions=conditions
    )
