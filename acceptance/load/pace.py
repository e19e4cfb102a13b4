"""How long a cell may be expected to take: for plans and deadlines, never for judging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Frozen
from acceptance.load.engine import LoadEngine

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from acceptance.load.workloads import Cell

WARM_OUTPUT = 64  # tokens: longest answer of a warm-up request, see warmup.py
EXPECTED_WAVES = 3
WORKER_CLIENT = 0.5  # seconds
PATIENCE = 5.0  # a cell may take this many times what is expected
COOL_DOWN = 15.0  # seconds before an invalid cell is tried again: clocks and queues recover
CLIENT_PATIENCE = 120.0  # seconds: `vllm bench serve` imports for 8 to 45 s on an idle machine


class Pace(Frozen):
    """A crude model of a lane. client: seconds that the client needs before its first request
    when it is started for the cell.
    prefill: prompt tokens per second. step: seconds of one decode step with one request;
    per_request: what each further request adds to it."""

    client: float
    prefill: float
    step: float
    per_request: float


# GPUs: GPUStack's 15.5 to 17.7k tok/s of prefill with vLLM 0.11 on 8xH200, the recipe's TPOT of
# 15.85 ms at one request, and the slope of InferenceX's 8xH200 points from 1 to 64 requests.
GPU = Pace(client=25, prefill=15_000, step=0.016, per_request=0.00035)
# Two shared CPU cores and a tiny model: sixteen requests of 64 tokens took 0.9 to 8.7 s.
CPU = Pace(client=12, prefill=2_000, step=0.02, per_request=0.004)


def expected_seconds(
    deployment: Deployment, cell: Cell, engine: LoadEngine = LoadEngine.WORKER
) -> float:
    """Seconds for client start, warm-up and measured windows of one cell. engine: how the client
    is run; a worker has imported vLLM before."""
    pace = CPU if deployment.lane is Lane.REHEARSAL else GPU
    client = WORKER_CLIENT if engine is LoadEngine.WORKER else pace.client
    prefill = cell.input_tokens / pace.prefill
    step = pace.step + pace.per_request * (cell.batch - 1)
    wave = prefill + min(cell.osl, WARM_OUTPUT) * step
    return EXPECTED_WAVES * wave + cell.repeats * (client + prefill + cell.osl * step)


def deadline_seconds(deployment: Deployment, cell: Cell) -> float:
    """Seconds after which a client is ended. The tool itself would wait six hours."""
    return CLIENT_PATIENCE + PATIENCE * expected_seconds(deployment, cell)
