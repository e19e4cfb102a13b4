"""The cells of a made-up run: numbers that follow the roofline, with limits as calibration leaves
them and the files that the client leaves beside its own."""

from __future__ import annotations

import json
import random
import zlib
from typing import TYPE_CHECKING, Any

from acceptance.judging.bounds import bounds_for, roofline_of
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Broken, Kind, Limit, Measurement, Window
from reports.schema import Check, JudgementRecord

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from acceptance.load.workloads import Cell


def add_cell(made: Any, deployment: Deployment, common: dict[str, Any], cell: Cell) -> None:
    rng = random.Random(zlib.crc32(f"{deployment.name}/{cell.id}".encode()))
    roof = roofline_of(deployment)
    assert roof is not None
    stretch = deployment.scale.time
    tpot = stretch * (2.3 + rng.random() * 0.2) * roof.tpot_ms(cell.batch, cell.isl + cell.osl / 2)
    tpot += 6.0
    ttft = 30 + stretch * 1.9 * roof.mean_ttft_ms(cell.batch, cell.isl)
    ill = made.ill.get(cell.id, "") if deployment is made.deployments[0] else ""
    tpots = [
        rng.gauss(tpot, tpot * 0.01) * (1.4 if ill == "slow" else 1) for _ in range(cell.batch)
    ]
    ttfts = [ttft * 2 * (n + 1) / (cell.batch + 1) for n in range(cell.batch)]
    ends = [a + b * (cell.osl - 1) for a, b in zip(ttfts, tpots, strict=True)]
    duration = max(ends) / 1000
    window = Window(start=made.clock, end=made.clock + duration)
    made.tick(duration + 8)
    values: dict[str, tuple[float, str, list[float]]] = {
        "successful_requests": (cell.batch, "requests", []),
        "input_tokens": (cell.input_tokens, "tokens", []),
        "generated_tokens": (cell.output_tokens, "tokens", []),
        "duration_s": (duration, "s", []),
        "request_throughput": (cell.batch / duration, "req/s", []),
        "output_throughput": (cell.output_tokens / duration, "tok/s", []),
        "total_token_throughput": (
            (cell.output_tokens + cell.input_tokens) / duration, "tok/s", [],
        ),
        "goodput_server": (cell.batch / duration, "req/s", []),
        "goodput_interactive": (0.0, "req/s", []),
    }  # fmt: skip
    for name, samples in (("ttft", ttfts), ("tpot", tpots), ("itl", tpots), ("e2el", ends)):
        ordered = sorted(samples)
        kept = samples if name != "itl" else []
        values[f"{name}_mean_ms"] = sum(samples) / len(samples), "ms", kept
        values[f"{name}_median_ms"] = ordered[len(ordered) // 2], "ms", kept
        values[f"{name}_p99_ms"] = ordered[-1 - len(ordered) // 100], "ms", kept
    bounds = bounds_for(deployment, cell.workload, cell.batch, cell.isl, cell.osl)
    evidence = _evidence(made, deployment, cell, {n: b.lower for n, b in bounds.items()})
    broken = (
        (
            Broken(
                rule="prefix-cache-hits", evidence="4096 prompt tokens came from the prefix cache"
            ),
        )
        if ill == "cached"
        else ()
    )
    expected = {"tpot": tpot, "ttft": ttft}
    conditions = {
        "lane": str(deployment.lane),
        "profile": "benchmark",
        "precision": str(deployment.precision),
        "layout": deployment.layout.label,
        "workload": cell.workload,
        "batch": cell.nominal,
    }
    for number, (metric, (value, unit, samples)) in enumerate(values.items()):
        test = ("completes", "tokens", "throughput", "latency")[number % 4]
        check = Check(
            area="performance",
            check=f"performance/test_matrix.py::test_{test}",
            variant=cell.id,
            nodeid=f"suites/performance/test_matrix.py::test_{test}[{deployment.name}-{cell.id}]",
            title="Numbers of one cell.",
            **common,
        )
        measured = Measurement(
            name=metric, value=value, unit=unit, samples=tuple(round(s, 3) for s in samples),
            window=window, evidence=evidence, broken=broken,
        )  # fmt: skip
        shown = metric.startswith(("itl", "e2el", "goodput", "duration")) or metric == "ttft_p99_ms"
        limit = None if shown else _limit(metric, float(value), unit, expected, ill)
        made.records.append(
            JudgementRecord(
                time=made.clock,
                check=check,
                judgement=judge(measured, limit, required=not shown, bounds=[*bounds.values()][:0]),
                conditions=conditions,
            )
        )


def _limit(metric: str, value: float, unit: str, expected: dict[str, float], ill: str) -> Limit:
    """A baseline as calibration leaves it, around what a healthy cell would have."""
    name = metric.split("_")[0]
    if unit in ("requests", "tokens"):
        return Limit(kind=Kind.EXPECTED, expected=value, unit=unit, source="size of the cell")
    centre = value
    if ill == "slow" and name == "tpot":
        centre = expected["tpot"]
    wide = 0.3 if name == "ttft" else 0.05
    return Limit(
        kind=Kind.BASELINE,
        lower=centre * (1 - wide),
        upper=centre * (1 + wide),
        unit=unit,
        source="calibrated on made-up runs [site.toml]",
    )


def _evidence(
    made: Any, deployment: Deployment, cell: Cell, bounds: dict[str, Any]
) -> dict[str, Any]:
    stem = f"{deployment.name}.{cell.id}"
    counts = {
        "vllm:generation_tokens_total": cell.output_tokens,
        "vllm:request_success_total": cell.batch,
        "vllm:prefix_cache_hits_total": 0,
        "vllm:time_to_first_token_seconds_sum": cell.batch * 0.2,
        "vllm:time_to_first_token_seconds_count": cell.batch,
        "vllm:inter_token_latency_seconds_sum": cell.output_tokens * 0.02,
        "vllm:inter_token_latency_seconds_count": cell.output_tokens,
    }
    beside = {
        "argv": ["vllm", "bench", "serve", "--model", deployment.model, "--seed", str(cell.seed),
                 "--num-prompts", str(cell.batch), "--random-input-len", str(cell.isl)],
        "before": {"values": {name: {"0": 0.0} for name in counts}},
        "after": {"values": {name: {"0": float(n)} for name, n in counts.items()}},
    }  # fmt: skip
    (made.folder / "cells" / f"{stem}.run.json").write_text(json.dumps(beside))
    return {
        "deployment": deployment.name,
        "lane": str(deployment.lane),
        "cell": cell.id,
        "workload": cell.workload,
        "batch": cell.nominal,
        "requests": cell.batch,
        "isl": cell.isl,
        "osl": cell.osl,
        "seed": cell.seed,
        "load_engine": "worker",
        "client": {"lag_p99_ms": 1.2, "lag_max_ms": 3.4, "cpu_share": 0.21},
        "result": f"cells/{stem}.json",
        "warm_up_waves_s": [4.2, 4.1],
        "warm_up_steady": True,
        "engine_tokens": {
            str(engine): cell.output_tokens / deployment.layout.data
            for engine in range(deployment.layout.data)
        },
        "preemptions": 0.0,
        "queued": False,
        "runs_at_once": 900,
        "physical_bounds": bounds,
        "unobserved_rules": [],
    }
