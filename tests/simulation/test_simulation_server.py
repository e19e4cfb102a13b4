"""The honest server: vLLM's API by the suite's own checks, its log by its readers, its truth."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from conformance_world import Check, World, checks, name_of, variants
from simulation_world import KEY, PATIENCE, ROOT, Running, running, simulated

from acceptance.conformance.refusals import Refusal
from acceptance.deployments.load import with_options
from acceptance.deployments.schema import Profile
from acceptance.gpus.kv import GIB, LOGGED_GIB_SLACK, check_capacity
from acceptance.serving.phases import Phase
from acceptance.simulation.engine import Job, Limits, Scheduler
from acceptance.simulation.faults import Faults
from acceptance.simulation.latency import Machine, constants
from fixtures.judging import OptionalSkip
from suites.conformance import test_bad_input, test_limits

if TYPE_CHECKING:
    from pathlib import Path


def some(check: Check) -> list[dict[str, Any]]:
    """A check's variants; of those that only send other bad requests, the first: each makes the
    server generate again, which takes it seconds."""
    found = list(variants(check))
    refused = any(isinstance(value, Refusal) for params in found for value in params.values())
    return found[:1] if refused else found


CASES = [(check, params) for check in checks() for params in some(check)]
NAMES = ("fp8-8xh200-tp-ep", "fp8-8xh200-dp-ep", "fp4-4xb200-tp-ep", "fp4-4xb200-dp-ep")


def judge(world: World, check: Check, **params: Any) -> None:
    """Runs a check; what the deployment leaves to vLLM is not judged."""
    with suppress(OptionalSkip):
        world.run(check, **params)


def _id(value: object) -> str:
    if callable(value):
        return name_of(value)
    if isinstance(value, dict):
        return "-".join(v.name if isinstance(v, Refusal) else str(v) for v in value.values())
    return str(value)


@pytest.mark.parametrize(("check", "params"), CASES, ids=_id)
def test_conformance(
    honest: Running, monkeypatch: pytest.MonkeyPatch, check: Check, params: dict[str, Any]
) -> None:
    for module in (test_bad_input, test_limits):  # a loaded host is no fault of the server's
        monkeypatch.setattr(module, "QUICK", PATIENCE)
    world = World(cast("Any", honest), simulated(), facts=honest.phases().facts)
    judge(world, check, **params)


@pytest.mark.parametrize("name", NAMES)
def test_each_deployment_says_what_it_is(tmp_path: Path, name: str) -> None:
    deployment = simulated(name)
    with running(tmp_path, deployment) as server:
        world = World(cast("Any", server), deployment, facts=server.phases().facts)
        for check in checks():
            if (
                "test_live_config" in name_of(check)
                or name_of(check) == "test_liveness.test_metrics"
            ):
                judge(world, check)
        assert deployment.layout.fingerprint in server.complete().json()["system_fingerprint"]


def test_asked_options_are_served(tmp_path: Path) -> None:
    asked = with_options(
        simulated(), ["gpu_memory_utilization=0.9", "moe_backend=cutlass", "enforce_eager=true"]
    )
    with running(tmp_path, asked, profile=Profile.SERVING) as server:
        world = World(cast("Any", server), asked, facts=server.phases().facts)
        world = replace(world, profile=Profile.SERVING)
        for check in checks():
            if "test_live_config" in name_of(check):
                judge(world, check)
        prompt = "s" * 200
        server.complete(prompt=prompt)
        server.complete(prompt=prompt)
        assert server.metrics().sum("vllm:prefix_cache_hits_total") == 192


@pytest.mark.parametrize("name", NAMES)
def test_log_tells_phases_and_capacity(tmp_path: Path, name: str) -> None:
    deployment = simulated(name)
    with running(tmp_path, deployment) as server:
        phases = server.phases()
        labels = server.metrics().labels("vllm:cache_config_info")
    assert phases.listening
    passed = {transition.phase for transition in phases.transitions}
    assert {Phase.LOADING, Phase.COMPILING, Phase.PROFILING, Phase.WARMING} <= passed
    facts = phases.facts
    engines = deployment.layout.data
    assert len(facts.kv_cache_tokens) == len(facts.available_kv_gib) == len(labels) == engines
    assert all(gib > 0 for gib in facts.graph_capture_gib.values())
    for gib, told in zip(facts.available_kv_gib.values(), labels, strict=True):
        assert check_capacity(
            reported_tokens=int(told["kv_cache_size_tokens"]),
            available_bytes=int(gib * GIB),
            bytes_per_token=35136 if "fp4" in name else 70272,
            block_size=int(told["block_size"]),
            max_model_len=deployment.options.max_model_len or 0,
            slack_bytes=LOGGED_GIB_SLACK,
        ).agrees
    assert sum(facts.kv_cache_tokens.values()) == sum(
        int(told["kv_cache_size_tokens"]) for told in labels
    )


@pytest.mark.parametrize("streams", [1, 32])
def test_truth_is_the_schedule(tmp_path: Path, streams: int) -> None:
    """What the running server scheduled is what the model says of the same arrivals in virtual
    time: the machine may be late in sending, but the schedule knows nothing of that."""
    isl, osl = 10, 40
    with running(tmp_path, fault='{"noise": 0}') as server:
        asyncio.run(_burst(server, streams, isl, osl))
        told = server.truth()["requests"]
    assert len(told) == streams
    served = statistics.fmean(_tpot(one["scheduled"]) for one in told)
    assert served == pytest.approx(_replayed_tpot(told), rel=0.02)
    for one in told:
        assert one["streamed"]
        assert one["output"] == len(one["scheduled"]) == osl
        assert one["scheduled"] == sorted(one["scheduled"])
        # Never early, whatever the machine.
        assert one["sent"][0] >= one["scheduled"][0] > one["arrived"]
        assert one["sent"][1] >= one["scheduled"][-1]


async def _burst(server: Running, streams: int, isl: int, osl: int) -> None:
    body = {"model": server.model, "max_tokens": osl, "ignore_eos": True, "stream": True}
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(headers=headers, timeout=PATIENCE, limits=limits) as client:
        answers = await asyncio.gather(
            *(
                client.post(f"{server.url}/v1/completions", json={**body, "prompt": [n + 9] * isl})
                for n in range(streams)
            )
        )
    for answer in answers:
        assert answer.text.count('"text"') == osl
        assert answer.text.endswith("data: [DONE]\n\n")


def _replayed_tpot(told: list[dict[str, Any]]) -> float:
    """The same arrivals in virtual time."""
    scale = simulated().scale
    machine = Machine("H200", "fp8", 8, 1)
    limits = Limits(1024, 8192, machine.kv_tokens(constants()["server"]["block"], scale.length))
    scheduler = Scheduler(machine, limits, Faults(noise=0), scale.length, scale.time)
    arrivals = sorted(told, key=lambda one: float(one["arrived"]))
    jobs = [Job(o["prompt"], o["output"], o["arrived"], lambda *_: None) for o in arrivals]
    for job in jobs:
        scheduler.submit(job)
    now = 0.0
    while (step := scheduler.plan(now)) is not None:
        list(scheduler.apply(step))
        now = step.end
    return statistics.fmean(_tpot(job.times) for job in jobs)


def _tpot(times: list[float]) -> float:
    return (times[-1] - times[0]) / (len(times) - 1)


def test_metrics_add_up(tmp_path: Path) -> None:
    with running(tmp_path, simulated("fp4-4xb200-dp-ep")) as server:
        asyncio.run(_burst(server, 12, 10, 6))
        metrics = server.metrics()
    assert metrics.sum("vllm:generation_tokens_total") == 72
    assert metrics.sum("vllm:prompt_tokens_total") == 120
    assert metrics.sum("vllm:request_success_total") == 12
    assert metrics.sum("vllm:time_to_first_token_seconds_count") == 12
    assert metrics.sum("vllm:inter_token_latency_seconds_count") == 60
    assert metrics.sum("vllm:num_requests_running") == 0
    assert all(n == 18 for n in metrics.by_engine("vllm:generation_tokens_total").values())


def test_a_client_that_leaves_frees_its_place(honest: Running) -> None:
    with honest.client as client:
        asked = {"model": honest.model, "prompt": "x", "max_tokens": 2000, "ignore_eos": True}
        with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
            next(answer.iter_bytes())  # and goes
    deadline = 200
    while honest.metrics().sum("vllm:num_requests_running") and deadline:
        deadline -= 1
    assert honest.metrics().sum("vllm:num_requests_running") == 0


def test_sigterm_lets_requests_finish(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client as client:
        asked = {"model": server.model, "prompt": "x", "max_tokens": 60, "ignore_eos": True}
        with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            server.process.terminate()
            text += "".join(pieces)
        assert text.endswith("data: [DONE]\n\n")
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (("--enable-expert-paralel",), {}, "unrecognized arguments: --enable-expert-paralel"),
        (("--sim-precision", "fp4"), {}, "needs --sim-gpu B200"),
        (
            ("--fail-on-environ-validation",),
            {"VLLM_USE_FLASHINFER_MOE_FP8": "1"},
            "Unknown vLLM environment variable detected: VLLM_USE_FLASHINFER_MOE_FP8",
        ),
        ((), {"ACCEPTANCE_SIMULATION": '{"fault": "x"}'}, "no fault is called"),
    ],
)
def test_what_it_does_not_know_it_refuses(
    words: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "acceptance.simulation", "serve", "m", "--port", "1", *words],
        env={"PYTHONPATH": str(ROOT), "PATH": "", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode in (1, 2)
    assert said in done.stdout + done.stderr
