"""How much memory of each GPU was left free, sampled at 10 Hz by a process of its own.

vLLM plans with a share of each GPU and checks its plan once, while starting. What comes later, such
as graphs beyond their estimate, workspaces of long prompts and leaks, is taken from the rest. What
was read while somebody else was on the GPUs says nothing of the server, and is INVALID.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from acceptance.errors import ObservationError
from acceptance.gpus.headroom import growth, headrooms, imbalance
from acceptance.gpus.kv import GIB
from acceptance.gpus.probe import Observed, Unobservable
from acceptance.gpus.telemetry import Span
from acceptance.judging.judgement import Broken, Kind, Limit, Measurement, Window
from acceptance.load.warmup import ordinary_tokens
from acceptance.serving.metrics import scrape
from fixtures.judging import not_applicable, unobservable
from suites.memory.longest import how_many, longest_prompts

if TYPE_CHECKING:
    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.gpuwatch import GpuWatch
    from fixtures.judging import Judge

DEFAULT_BATCHED = 8192  # tokens of a step, where the deployment leaves it to vLLM
SETTLED = 1.5  # seconds: memory that does not change is written once in about one


def test_headroom_over_startup(
    server: Server, deployment: Deployment, gpu_watch: GpuWatch, judge: Judge
) -> None:
    """From before the launch until ready, loading, profiling and graph capture included.

    Does not prove anything of requests. Would have caught vllm#57475 (graphs beyond their estimate,
    out of memory in capture) one step before it happens.
    """
    _judge(judge, server, deployment, gpu_watch, gpu_watch.starting, "startup")


def test_headroom_over_longest_prompts(
    server: Server,
    deployment: Deployment,
    gpu_watch: GpuWatch,
    http: httpx.Client,
    judge: Judge,
) -> None:
    """Prompts of max_model_len, enough to fill max_num_batched_tokens, are served with memory left.

    Does not prove it for many of them over hours. Would have caught vllm-backport#94 (activations
    of long prompts beyond the profile: 784 MiB free, then out of memory), and
    deepseek-ai/DeepSeek-V2#83 (a length that the cache could not hold).
    """
    longest = deployment.options.max_model_len or server.startup.facts.concurrency_length
    if longest is None:
        unobservable("log", "max_model_len is left to vLLM and its log does not tell it")
    length = longest - 1  # one token is generated
    count = how_many(length, deployment.options.max_num_batched_tokens or DEFAULT_BATCHED)
    began = time.time()
    tokens = ordinary_tokens(server.model_path)
    answers = longest_prompts(http, server.model, length, count, tokens)
    time.sleep(SETTLED)
    judge(
        Measurement(
            name="longest_requests_served",
            value=sum(answer.whole(length) for answer in answers),
            unit="requests",
            evidence={
                "prompt_tokens": length,
                "errors": [answer.error for answer in answers if answer.error],
            },
        ),
        limit=Limit(
            kind=Kind.EXPECTED,
            expected=count,
            unit="requests",
            source=f"{deployment.name}: max_model_len and max_num_batched_tokens",
        ),
    )
    _judge(judge, server, deployment, gpu_watch, Span(began, time.time()), "longest-prompts")


def test_headroom_over_load(
    server: Server, deployment: Deployment, loaded: GpuWatch, judge: Judge
) -> None:
    """From ready until the benchmark matrix has run.

    Does not prove it for larger batches than the tier has. Would have caught vllm#13582 (R1 on
    8xH200 out of memory under load, in a server that had started).
    """
    _judge(judge, server, deployment, loaded, loaded.serving, "load")


def test_memory_does_not_grow(deployment: Deployment, loaded: GpuWatch, judge: Judge) -> None:
    """What is free after the matrix is what was free at ready, but for what is kept once.

    Growth after the first cell is judged apart, and tighter: buffers and kernels of first use are
    there by then. Does not prove the absence of a leak slower than its ceiling.
    """
    telemetry = loaded.telemetry()
    now = time.time()
    spans = {"growth_gib": loaded.serving.start}
    ends = sorted(loaded.cells.values())
    if len(ends) > 1:
        spans["late_growth_gib"] = ends[0]
    measured = []
    for name, since in spans.items():
        span = Span(since, now)
        shared = loaded.shared(span)
        measured += [
            _gib(name, grown, loaded.names[uuid], span, shared)
            for uuid, grown in growth(telemetry, since, now).items()
        ]
    judge(*measured)


def test_ranks_have_equal_headroom(
    server: Server, deployment: Deployment, after_load: GpuWatch, judge: Judge
) -> None:
    """The GPU with the most memory left and the one with the least are close together.

    Ranks hold equal shards, so a rank that stands out holds something else. Does not prove that
    work is balanced. Would have caught contexts of other ranks' processes on the first GPU.
    """
    if len(after_load.gpus) == 1:
        not_applicable("one GPU has nothing to be compared with")
    span = Span(after_load.began, time.time())
    found = headrooms(after_load.telemetry(), span, None)
    shared = after_load.shared(span)
    judge(_gib("headroom_imbalance_gib", imbalance(found), "", span, shared))


def test_graph_memory_is_as_estimated(
    server: Server, deployment: Deployment, gpu_watch: GpuWatch, judge: Judge
) -> None:
    """CUDA graphs take no more than vLLM set aside for them, by its own log; shown, no verdict.

    What is beyond the estimate comes out of the planned headroom, which gates. Does not prove that
    the estimate was tight. Would have shown vllm#57475 (out of memory in capture at 0.98).
    """
    if deployment.options.enforce_eager:
        not_applicable("enforce_eager: there are no graphs")
    facts = server.startup.facts
    both = facts.graph_pool_actual.keys() & facts.graph_pool_estimated.keys()
    if not both:
        unobservable("log", "no `CUDA graph pool memory` line; vLLM before 0.21 writes none")
    judge(
        *(
            Measurement(
                name="graph_overshoot_gib",
                value=round(facts.graph_pool_actual[rank] - facts.graph_pool_estimated[rank], 3),
                unit="GiB",
                evidence={"rank": rank, "actual_gib": facts.graph_pool_actual[rank]},
            )
            for rank in sorted(both)
        ),
        required=False,
    )


def _judge(
    judge: Judge,
    server: Server,
    deployment: Deployment,
    watch: GpuWatch,
    span: Span,
    phase: str,
) -> None:
    """Headroom in GiB and as a share gate; the overrun of the plan is shown beside them."""
    found = headrooms(watch.telemetry(), span, _utilisation(server, deployment))
    window = Window(start=span.start, end=span.end)
    shared = watch.shared(span)
    gating, shown = [], []
    for uuid, room in found.items():
        gpu = {"gpu": watch.names[uuid]}
        if isinstance(room, Unobservable):
            gating.append(_gib("headroom_gib", room, watch.names[uuid], span, shared))
            continue
        planned = {} if room.planned is None else {"planned_gib": round(room.planned / GIB, 3)}
        gating += [
            Measurement(
                name="headroom_gib",
                value=round(room.least / GIB, 3),
                unit="GiB",
                window=window,
                evidence=gpu | planned,
                broken=shared,
            ),
            Measurement(
                name="headroom_share",
                value=round(room.share, 5),
                unit="ratio",
                window=window,
                evidence=gpu,
                broken=shared,
            ),
        ]
        if room.overrun is not None:
            name = watch.names[uuid]
            shown.append(_gib("headroom_overrun_gib", room.overrun, name, span, shared))
    if shown:
        judge(*shown, required=False, phase=phase)
    floor = deployment.memory.headroom_floor_gib
    for measurement in gating:
        declared = None
        if floor is not None and measurement.name == "headroom_gib":
            declared = Limit(
                kind=Kind.FLOOR,
                lower=floor,
                unit="GiB",
                source=f"{deployment.name}: memory.headroom_floor_gib",
            )
        judge(measurement, limit=declared, phase=phase)


def _gib(
    name: str, answer: Observed[int], gpu: str, span: Span, broken: tuple[Broken, ...]
) -> Measurement:
    """Bytes as a measurement in GiB; without a value where it could not be observed."""
    unseen = isinstance(answer, Unobservable)
    return Measurement(
        name=name,
        value=None if isinstance(answer, Unobservable) else round(answer / GIB, 3),
        unit="GiB",
        window=Window(start=span.start, end=span.end),
        evidence={"gpu": gpu} | ({"unobservable": str(answer)} if unseen else {}),
        broken=broken,
    )


def _utilisation(server: Server, deployment: Deployment) -> float | None:
    """As the server itself says; the share that was asked for where it does not."""
    with suppress(ObservationError):
        for labels in scrape(server).labels("vllm:cache_config_info"):
            if "gpu_memory_utilization" in labels:
                return float(labels["gpu_memory_utilization"])
    return deployment.options.gpu_memory_utilization
