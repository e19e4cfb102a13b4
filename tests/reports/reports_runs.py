"""Recorded runs of one cell, for the tests of comparison and calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Kind, Limit, Measurement
from reports.recorder import Recorder
from reports.schema import (
    Check,
    GpuIdentity,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    Trace,
)

if TYPE_CHECKING:
    from pathlib import Path

NAME = "fp8-8xh200-tp-ep"
SPEEDS = {"tpot_mean_ms": 20.0, "output_throughput": 800.0, "ttft_median_ms": 300.0}


def record_run(
    folder: Path, *, vllm: str = "0.32.0", faults: int = 0, **speeds: float | None
) -> Path:
    """Writes a run; speeds by metric, None leaves one out. faults: servers that failed."""
    recorder = Recorder(folder)
    recorder.start(
        RunRecord(
            time=1.0,
            suite_version="0.1",
            suite_commit="0123456789abcdef",
            host="node-1",
            vllm=vllm,
            gpus=(GpuIdentity(name="NVIDIA H200"),) * 8,
            deployments=(SelectedDeployment(name=NAME, digest="abc", lane=Lane.FULL),),
        )
    )
    for metric, value in {**SPEEDS, **speeds}.items():
        if value is not None:
            recorder.write(_speed(metric, value))
    recorder.write(_right())
    for _ in range(faults):
        trace = Trace(cause="CUDA error")
        recorder.write(ServerRecord(time=2.0, deployment=NAME, outcome="failed", trace=trace))
    return folder


def _speed(metric: str, value: float) -> JudgementRecord:
    return JudgementRecord(
        time=2.0,
        check=Check(
            deployment=NAME,
            lane=Lane.FULL,
            profile="benchmark",
            area="performance",
            check="performance/test_matrix.py::test_x",
            variant="balanced-b16",
        ),
        judgement=judge(Measurement(name=metric, value=value, unit="u"), None),
        conditions={"workload": "balanced", "batch": 16, "lane": "full"},
    )


def _right() -> JudgementRecord:
    limit = Limit(kind=Kind.EXPECTED, expected="same", source="s")
    return JudgementRecord(
        time=2.0,
        check=Check(deployment=NAME, area="correctness", check="correctness/test_c.py::test_c"),
        judgement=judge(Measurement(name="texts", value="same"), limit),
    )
