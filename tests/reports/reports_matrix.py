"""A made-up run as large as a real one: every cell of the matrix, checks of every area, servers,
telemetry and logs. The numbers follow the roofline; nothing was measured."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acceptance.deployments.load import load_deployments
from acceptance.deployments.schema import Lane
from acceptance.judging.bounds import bounds_for, roofline_of
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Broken, Kind, Limit, Measurement, Outcome, Window
from acceptance.load.workloads import Tier, cell_ids, make_cell
from reports.checks import test_record as record_of
from reports.identity import select
from reports.reading import read_results
from reports.recorder import RESULTS
from reports.ruling import closing
from reports.schema import (
    Check,
    EndRecord,
    Exchange,
    GpuIdentity,
    JudgementRecord,
    RunRecord,
    ServerRecord,
    TestRecord,
    Trace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from acceptance.deployments.schema import Deployment
    from acceptance.load.workloads import Cell
    from reports.schema import AnyRecord

_ = record_of, Outcome, EndRecord
FULL = ("fp8-8xh200-tp-ep", "fp8-8xh200-dp-ep", "fp4-4xb200-tp-ep", "fp4-4xb200-dp-ep")
SIMULATED = tuple(f"simulated-{name}" for name in FULL)
BEGAN = 1_795_000_000.0
GIB = 2**30
CAPABILITIES = ("chat", "completions", "streaming", "bad_input", "logprobs", "usage", "limits")
PHASES = {"importing": 18, "launching": 24, "loading": 410, "compiling": 95, "profiling": 21}
PHASES |= {"capturing": 44, "warming": 130}
HOSTILE = (
    "<script>window.broken = 1; fetch('http://192.0.2.1/')</script>"
    "<img src=x onerror=\"window.broken = 2\"></pre></td></table><svg onload='window.broken=3'>"
    "\u202egnp.exe\u2066 \x00 \x1b[31mred\x1b[0m\x1b]0;title\x07 {{ 7191*7193 }} &lt;b&gt; "
)


@dataclass
class Made:
    """A run that is being made. ill: cell id to what is wrong with it, `slow` or `cached`."""

    folder: Path
    deployments: list[Deployment]
    tier: Tier = Tier.FULL
    checks: int = 60
    ill: dict[str, str] = field(default_factory=dict)
    said: str = ""
    dead: bool = False
    records: list[AnyRecord] = field(default_factory=list)
    clock: float = BEGAN

    def tick(self, seconds: float) -> float:
        self.clock += seconds
        return self.clock


def make_run(folder: Path, *names: str, **asked: Any) -> Made:
    """Writes a run and returns it. names: deployments; else the four of the recipe."""
    known = load_deployments()
    made = Made(folder, [known[name] for name in names or FULL], **asked)
    for part in ("servers", "telemetry", "cells"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    gpus = () if made.deployments[0].lane is Lane.SIMULATED else _gpus(made.deployments[0])
    run = RunRecord(
        time=BEGAN,
        suite_version="0.1.0",
        suite_commit="0123456789abcdef0123456789abcdef01234567",
        argv=("pytest", "--tier", str(made.tier)),
        host="made-up-host",
        platform="Linux-6.8 x86_64",
        python="3.12.3",
        vllm="0.32.0",
        driver="580.159.04" if gpus else None,
        gpus=gpus,
        deployments=tuple(select(deployment) for deployment in made.deployments),
        tier=str(made.tier),
    )
    (folder / "run.json").write_text(run.model_dump_json(by_alias=True, indent=2))
    made.records.append(run)
    for deployment in made.deployments:
        _deployment(made, deployment)
    _write(made)
    end = closing(
        read_results(folder), finished=True, pytest_status=0, duration=made.clock - BEGAN
    ).model_copy(update={"time": made.clock})
    made.records.append(end)
    _write(made)
    return made


def _write(made: Made) -> None:
    lines = (record.model_dump_json(by_alias=True) + "\n" for record in made.records)
    (made.folder / RESULTS).write_text("".join(lines), encoding="utf-8")


def _gpus(deployment: Deployment) -> tuple[GpuIdentity, ...]:
    name = f"NVIDIA {deployment.gpus.kind}"
    return tuple(
        GpuIdentity(name=name, uuid=f"GPU-{n:08x}", index=n) for n in range(deployment.gpus.count)
    )


def _deployment(made: Made, deployment: Deployment) -> None:
    began = made.clock
    log = made.folder / "servers" / f"{deployment.name}.benchmark.log"
    log.write_text("\n".join(_log(made.dead and deployment is made.deployments[-1])) + "\n")
    common: dict[str, Any] = {
        "deployment": deployment.name,
        "digest": deployment.digest,
        "lane": deployment.lane,
        "profile": "benchmark",
    }
    if made.dead and deployment is made.deployments[-1]:
        trace = Trace(
            cause="ended with exit code 1 while starting: torch.OutOfMemoryError: CUDA out of "
            "memory. Tried to allocate 7.00 GiB",
            excerpt=("the server ended with exit code 1 while starting", "asked: vllm serve"),
            log=str(log),
            hint="lower gpu_memory_utilization",
        )
        made.records.append(
            ServerRecord(time=made.tick(60), outcome="failed", trace=trace, **common)
        )
        return
    scale = 0.002 if deployment.lane is Lane.SIMULATED else 1.0
    phases = {name: round(seconds * scale, 3) for name, seconds in PHASES.items()}
    command = f"vllm serve {deployment.model} --trust-remote-code --enable-expert-parallel"
    ready = ServerRecord(
        time=made.tick(sum(phases.values())),
        outcome="ready",
        phases=phases,
        command=command,
        vllm="0.32.0",
        trace=Trace(log=str(log)),
        **common,
    )
    made.records.append(ready)
    for number in range(made.checks):
        _check(made, deployment, common, number)
    _memory(made, deployment, common)
    for cell_id in cell_ids(made.tier):
        _cell(made, deployment, common, make_cell(deployment, cell_id))
    if deployment.gpus_here:
        _telemetry(made, deployment, began)
    made.records.append(ready.model_copy(update={"time": made.tick(5), "outcome": "stopped"}))


def _log(dead: bool) -> Iterator[str]:
    for number in range(120):
        yield f"INFO 11-24 09:00:{number % 60:02d} [core.py:{number}] step {number}, made up"
    if dead:
        yield "ERROR 11-24 09:02:00 [multiproc_executor.py:300] WorkerProc failed to start."
        yield "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 7.00 GiB"
        yield "INFO 11-24 09:02:01 [core.py:99] shutting down"


def _check(made: Made, deployment: Deployment, common: dict[str, Any], number: int) -> None:
    """A conformance check with its request, as record_check leaves it."""
    capability = CAPABILITIES[number % len(CAPABILITIES)]
    file = f"conformance/test_{capability}.py"
    name = f"test_case_{number:03d}"
    nodeid = f"suites/{file}::{name}[{deployment.name}]"
    check = Check(
        area="conformance", check=f"{file}::{name}", nodeid=nodeid,
        title=f"What the interface promises about {capability.replace('_', ' ')}, case {number}.",
        **common,
    )  # fmt: skip
    body = {"model": deployment.model, "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
    said = made.said if number == 0 else "2 + 2 is 4."
    answer = {"id": f"chatcmpl-{number}", "choices": [{"message": {"content": said}}]}
    exchange = Exchange(
        method="POST",
        path="/v1/chat/completions",
        status=200,
        auth="key",
        content_type="application/json",
        request=json.dumps(body | {"seed": number}),
        response=json.dumps(answer, ensure_ascii=False)[:4000],
    )
    fails = "slow" in made.ill.values() and number == 1 and deployment is made.deployments[0]
    limit = Limit(kind=Kind.EXPECTED, expected="as specified", source="what it asks")
    value = "HTTP 500, not 400 or 422" if fails else "as specified"
    if said != "2 + 2 is 4.":
        value = said[:400]
        limit = Limit(kind=Kind.EXPECTED, expected=value, source="what it asks")
    measured = Measurement(name="case", value=value)
    made.records.append(
        JudgementRecord(
            time=made.tick(0.2),
            check=check,
            judgement=judge(measured, limit),
            exchanges=(exchange,),
        )
    )
    made.records.append(
        TestRecord(
            time=made.clock,
            check=check,
            phase="call",
            outcome="failed" if fails else "passed",
            judged=fails,
            duration=0.2,
        )
    )


def _memory(made: Made, deployment: Deployment, common: dict[str, Any]) -> None:
    if not deployment.gpus_here:
        return
    check = Check(
        area="memory", check="memory/test_headroom.py::test_headroom",
        nodeid=f"suites/memory/test_headroom.py::test_headroom[{deployment.name}]", **common,
    )  # fmt: skip
    floor = Limit(kind=Kind.FLOOR, lower=1.0, unit="GiB", source="gpus.toml")
    for phase, room in (("startup", 9.2), ("longest-prompts", 6.8), ("load", 6.1)):
        for gpu in range(deployment.gpus.count):
            evidence = {"gpu": f"GPU {gpu}", "planned_gib": 13.2}
            measured = Measurement(
                name="headroom_gib", value=room - gpu * 0.02, unit="GiB", evidence=evidence
            )
            made.records.append(
                JudgementRecord(
                    time=made.clock,
                    check=check,
                    judgement=judge(measured, floor),
                    conditions={"phase": phase},
                )
            )
    for engine in range(deployment.layout.data):
        told = {"engine": str(engine), "reported_tokens": 482_176, "bytes_per_token": 70272.0}
        measured = Measurement(
            name="kv_cache_tokens_off", value=0, unit="tokens",
            evidence=told | {"available_bytes": 482_176 * 70272},
        )  # fmt: skip
        exact = Limit(kind=Kind.EXPECTED, expected=0, unit="tokens", source="bytes per token")
        made.records.append(
            JudgementRecord(time=made.clock, check=check, judgement=judge(measured, exact))
        )


def _cell(made: Made, deployment: Deployment, common: dict[str, Any], cell: Cell) -> None:
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
    made: Made, deployment: Deployment, cell: Cell, bounds: dict[str, Any]
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
        "preemptions": 0.0,
        "queued": False,
        "runs_at_once": 900,
        "physical_bounds": bounds,
        "unobserved_rules": [],
    }


def _telemetry(made: Made, deployment: Deployment, began: float) -> None:
    """Ten minutes of loading, then a plateau, for every GPU."""
    total = (141 if deployment.gpus.kind == "H200" else 179) * GIB
    names = [f"GPU-{n:08x}" for n in range(deployment.gpus.count)]
    gpus = {name: {"total": total, "reserved": 0} for name in names}
    lines: list[dict[str, Any]] = [{"t": began, "kind": "begin", "gpus": gpus, "registered": {}}]
    steps = 600
    for step in range(steps):
        moment = began + (made.clock - began) * step / steps
        loaded = min(1.0, max(0.0, (moment - began - 60) / 400))
        noise = int(hashlib.sha256(str(step).encode()).hexdigest()[:4], 16) / 65536
        free = [int(total - (total - 7 * GIB) * loaded - noise * 0.4 * GIB) for _ in names]
        lines.append({"t": moment, "kind": "memory", "samples": 10, "free": free})
    path = made.folder / "telemetry" / f"{deployment.name}.gpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
