"""A made-up run as large as a real one: every cell of the matrix, checks of every area, servers,
telemetry and logs. The numbers follow the roofline; nothing was measured."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reports_matrix_cells import add_cell

from acceptance.deployments.load import load_deployments
from acceptance.deployments.schema import Lane
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.load.pace import expected_seconds
from acceptance.load.workloads import Tier, cell_ids, make_cell
from reports.identity import select
from reports.reading import read_results
from reports.recorder import RESULTS
from reports.ruling import closing
from reports.schema import (
    Check,
    EstimateRecord,
    Exchange,
    GpuIdentity,
    JudgementRecord,
    RunRecord,
    ServerRecord,
    Spent,
    TestRecord,
    Trace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from acceptance.deployments.schema import Deployment
    from reports.schema import AnyRecord

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
    """A run that is being made. ill: cell id to what is wrong with it, `slow` or `cached`. kept:
    checks of the first deployment that a session before was killed after."""

    folder: Path
    deployments: list[Deployment]
    tier: Tier = Tier.FULL
    checks: int = 60
    ill: dict[str, str] = field(default_factory=dict)
    said: str = ""
    dead: bool = False
    kept: int = 0
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
    if made.kept:
        made.clock = BEGAN - 5400
        made.records.append(run.model_copy(update={"time": made.tick(0)}))
        made.tick(sum(PHASES.values()))
        for number in range(made.kept):
            _check(made, made.deployments[0], _common(made.deployments[0]), number)
        made.clock = BEGAN
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
    common = _common(deployment)
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
    for number in range(made.kept if deployment is made.deployments[0] else 0, made.checks):
        _check(made, deployment, common, number)
    _memory(made, deployment, common)
    _cells(made, deployment, common, began)
    if deployment.gpus_here:
        _telemetry(made, deployment, began)
    made.records.append(ready.model_copy(update={"time": made.tick(5), "outcome": "stopped"}))


def _common(deployment: Deployment) -> dict[str, Any]:
    """What all records of a deployment say."""
    return {
        "deployment": deployment.name,
        "digest": deployment.digest,
        "lane": deployment.lane,
        "profile": "benchmark",
    }


def _cells(made: Made, deployment: Deployment, common: dict[str, Any], began: float) -> None:
    """Every cell of the tier, and how long all took beside what was expected."""
    cells = [make_cell(deployment, cell_id) for cell_id in cell_ids(made.tier)]
    expected = sum(expected_seconds(deployment, cell) for cell in cells)
    start, first = deployment.expected_minutes.start * 60, made.clock
    ready = next(r for r in reversed(made.records) if isinstance(r, ServerRecord))
    started = sum(ready.phases.values())
    for cell in cells:
        add_cell(made, deployment, common, cell)
    counts: dict[str, Any] = {"starts": 1, "cells": len(cells)}
    made.records.append(
        EstimateRecord(
            time=made.clock,
            deployment=deployment.name,
            digest=deployment.digest,
            lane=deployment.lane,
            finished=True,
            expected=Spent(
                start_seconds=start,
                cell_seconds=expected,
                whole_seconds=start + expected + made.checks,
                **counts,
            ),
            actual=Spent(
                start_seconds=started,
                cell_seconds=made.clock - first,
                whole_seconds=made.clock - began,
                **counts,
            ),
        )
    )


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
