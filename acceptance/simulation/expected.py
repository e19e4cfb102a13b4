"""What the latency model says of a cell, in virtual time: every request of a burst comes at once,
and nothing is late. What a client measures lies above by what the machine adds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.simulation.engine import Job, Limits, Scheduler
from acceptance.simulation.faults import Faults
from acceptance.simulation.latency import Machine, constants

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment

QUIET = Faults(noise=0)


@dataclass(frozen=True)
class Expected:
    """Of one burst. Times in ms; tpot of each request; throughput in output tokens per second.

    ttft_around_ms: the steps of first tokens below and above the median; itself for none.
    """

    ttft_mean_ms: float
    ttft_median_ms: float
    ttft_around_ms: tuple[float, float]
    tpot_mean_ms: float
    tpot_median_ms: float
    tpot_p99_ms: float
    duration_s: float
    output_throughput: float
    preemptions: int


def expected(
    deployment: Deployment, batch: int, isl: int, osl: int, faults: Faults = QUIET
) -> Expected:
    """Plays a burst of batch requests of isl and osl tokens (at least 2) on a simulated
    deployment, which takes milliseconds."""
    server, options = constants()["server"], deployment.options
    machine = Machine(
        str(deployment.gpus.kind),
        deployment.precision.value,
        deployment.layout.tensor,
        deployment.layout.data,
        options.gpu_memory_utilization,
    )
    limits = Limits(
        seqs=options.max_num_seqs or server["max_num_seqs"],
        batched_tokens=options.max_num_batched_tokens or server["max_num_batched_tokens"],
        kv_tokens=machine.kv_tokens(server["block"], deployment.scale.length),
    )
    scale = deployment.scale
    scheduler = Scheduler(machine, limits, faults, scale.length, scale.time)
    jobs = [Job(isl, osl, 0.0, lambda *_: None) for _ in range(batch)]
    for job in jobs:
        scheduler.submit(job)
    now = 0.0
    while (step := scheduler.plan(now)) is not None:
        list(scheduler.apply(step))
        now = step.end
    firsts = [1000 * job.times[0] for job in jobs]
    tpots = [1000 * (job.times[-1] - job.times[0]) / (osl - 1) for job in jobs]
    return Expected(
        ttft_mean_ms=statistics.fmean(firsts),
        ttft_median_ms=statistics.median(firsts),
        ttft_around_ms=_around(firsts, statistics.median(firsts)),
        tpot_mean_ms=statistics.fmean(tpots),
        tpot_median_ms=statistics.median(tpots),
        tpot_p99_ms=_p99(tpots),
        duration_s=now,
        output_throughput=batch * osl / now,
        preemptions=sum(engine.preemptions for engine in scheduler.engines),
    )


def _around(values: list[float], middle: float) -> tuple[float, float]:
    below = max((value for value in values if value < middle), default=middle)
    return below, min((value for value in values if value > middle), default=middle)


def _p99(values: list[float]) -> float:
    """As the benchmark client computes it: linear between neighbours."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[98]
