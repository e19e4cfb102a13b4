"""How true load generators measure: their TTFT, TPOT and throughput against the simulated server's
own record of the same requests, in one run.

    python tests/benchmarks/fidelity.py [--streams 1 64 512] [--guidellm PATH] [--aiperf PATH]

Run with the interpreter that vLLM is installed in. PATH: those tools' executables, each from an
environment of its own. Every tool sends `streams` requests at once, 80 tokens in and 40 out. The
truth of TPOT and TTFT is the schedule that the server followed, for the very requests that the tool
sent; TTFT from the moment at which the tool says it sent them. Prints a row a tool and the
distances in the middle (p50), TTFT also against when the server wrote the first token: the rest is
the server's own lateness. Targets: TPOT within 1 %, TTFT within 2 ms, no peer closer.
GuideLLM's and AIPerf's "inter token latency" is what vLLM calls TPOT.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from acceptance.deployments.installed import find_vllm  # noqa: E402
from acceptance.deployments.load import load_deployments  # noqa: E402
from acceptance.deployments.schema import Profile  # noqa: E402
from acceptance.load.bench import run_cell  # noqa: E402
from acceptance.load.cli import CliEngine  # noqa: E402
from acceptance.load.warmup import WarmRule  # noqa: E402
from acceptance.load.worker import BenchWorker  # noqa: E402
from acceptance.load.workloads import make_cell  # noqa: E402
from acceptance.secrets import Redactor  # noqa: E402
from acceptance.serving.launch import launch, prepare  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.server import Server

DEPLOYMENT = "simulated-fp4-4xb200-tp-ep"
ISL, OSL = 80, 40


class Said(NamedTuple):
    """What a tool says. ttft, tpot: p50, ms. speed: output tokens per second. requests: of each,
    when it was sent and when its first token came, seconds of CLOCK_MONOTONIC."""

    ttft: float
    tpot: float
    speed: float
    requests: list[tuple[float, float]]


class Truth(NamedTuple):
    """What was so. ttft: as scheduled, and written: as the server wrote it; else as Said."""

    ttft: float
    written: float
    tpot: float
    speed: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--guidellm")
    parser.add_argument("--aiperf")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vllm, deployment = find_vllm(), load_deployments()[DEPLOYMENT]
        client = prepare(deployment, vllm, folder / "client")
        worker = BenchWorker(vllm, client.env, folder / "client.log")
        stack.callback(worker.close)
        worker.start()
        server = launch(deployment, Profile.BENCHMARK, vllm, folder, redactor=Redactor())
        assert server.custody is not None
        stack.callback(server.custody.end, deployment.budgets.stop)
        worker.wait_ready()
        tools: dict[str, Callable[[int, int], Said]] = {
            "worker": lambda streams, number: ours(server, worker, folder, streams, number),
            "cli": lambda streams, number: ours(server, CliEngine(), folder, streams, number + 50),
        }
        if asked.guidellm:
            tools["guidellm"] = lambda streams, _: guidellm(asked.guidellm, server, folder, streams)
        if asked.aiperf:
            tools["aiperf"] = lambda streams, _: aiperf(asked.aiperf, server, folder, streams)
        names = ("TTFT off ms", "from written", "TPOT off", "tok/s off")
        print(f"{'streams':>7} {'tool':9}", *(f"{name:>12}" for name in names))
        print("(medians of the rounds; what the tool said minus the truth)")
        for streams in asked.streams:
            for name, measure in tools.items():
                table(server, streams, name, measure, asked.rounds)
    return 0


def table(
    server: Server,
    streams: int,
    name: str,
    measure: Callable[[int, int], Said],
    rounds: int,
) -> None:
    """Prints one row."""
    off = []
    for number in range(1, rounds + 1):
        said = measure(streams, number)
        true = truth(server, said.requests)
        off.append(
            (
                said.ttft - true.ttft,
                said.ttft - true.written,
                100 * (said.tpot / true.tpot - 1),
                100 * (said.speed / true.speed - 1),
            )
        )
    ttft, written, tpot, speed = (statistics.median(column) for column in zip(*off, strict=True))
    print(
        f"{streams:7} {name:9} {ttft:12.2f} {written:12.2f} {tpot:11.2f}% {speed:11.2f}%",
        flush=True,
    )


def truth(server: Server, requests: list[tuple[float, float]]) -> Truth:
    """Of the last whole requests, as many as the tool sent. Which is which is told by the order in
    which first tokens were written and came: they are due together, step by step."""
    told = httpx.get(f"{server.base_url}/simulation/truth").json()["requests"]
    told = [one for one in told if one["streamed"] and one["output"] == OSL][-len(requests) :]
    assert len(told) == len(requests), f"{len(told)} requests of {len(requests)} came"
    told.sort(key=lambda one: one["sent"][0])
    starts = [start for start, _ in sorted(requests, key=lambda one: one[1])]
    tpots = [
        1000 * (one["scheduled"][-1] - one["scheduled"][0]) / (one["output"] - 1) for one in told
    ]
    took = max(one["scheduled"][-1] for one in told) - min(starts)
    scheduled, written = (
        1000
        * statistics.median(one[key][0] - start for one, start in zip(told, starts, strict=True))
        for key in ("scheduled", "sent")
    )
    return Truth(scheduled, written, statistics.median(tpots), len(starts) * OSL / took)


def ours(server: Server, engine: Any, folder: Path, streams: int, number: int) -> Said:
    """vLLM's client, as a cell of the suite."""
    cell = make_cell(server.deployment, "balanced-b1").model_copy(
        update={"id": f"streams-{streams}", "batch": streams, "isl": ISL, "osl": OSL}
    )
    engine.prepare(server, [cell])
    warm = WarmRule(least=1, most=1)
    found = [run_cell(server, cell, folder, engine, attempt=number, warm=warm, deadline=300)[-1]]
    result = found[0].result
    # perf_counter, which is CLOCK_MONOTONIC on Linux
    requests = [(s, s + first) for s, first in zip(result.start_times, result.ttfts, strict=True)]
    return Said(result.ttft.median, result.tpot.median, result.output_throughput, requests)


def guidellm(tool: str, server: Server, folder: Path, streams: int) -> Said:
    """GuideLLM, one burst of as many requests as streams."""
    out = folder / "guidellm.json"
    out.unlink(missing_ok=True)
    backend = (
        f"kind=openai_http,target={server.base_url},model={server.model},"
        f"api_key={server.api_key},request_format=/v1/completions"
    )
    call(
        *(tool, "run", "--backend", backend),
        *("--tokenizer", f"kind=hf_auto,model={server.model_path}"),
        *("--profile", f"kind=concurrent,streams={streams}"),
        *("--constraint", f"kind=max_requests,count={streams}"),
        *("--data", f"kind=synthetic_text,prompt_tokens={ISL},output_tokens={OSL}"),
        *("--output", f"kind=json,path={out}", "--disable-console", "--disable-progress"),
    )
    benchmark = json.loads(out.read_text(encoding="utf-8"))["benchmarks"][0]
    metrics = benchmark["metrics"]
    names = ("time_to_first_token_ms", "inter_token_latency_ms")
    ttft, tpot = (metrics[name]["successful"]["median"] for name in names)
    requests = [
        monotonic(one["request_start_time"], one["time_to_first_token_ms"])
        for one in benchmark["requests"]["successful"]
    ]
    speed = metrics["output_tokens_per_second"]["successful"]["mean"]
    return Said(ttft, tpot, speed, requests)


def aiperf(tool: str, server: Server, folder: Path, streams: int) -> Said:
    """AIPerf, one burst of as many requests as streams."""
    out = folder / "aiperf"
    shutil.rmtree(out, ignore_errors=True)
    call(
        *(tool, "profile", "--model", server.model, "--url", server.base_url),
        *("--endpoint-type", "completions", "--streaming", "--api-key", server.api_key or ""),
        *("--concurrency", str(streams), "--request-count", str(streams)),
        *("--synthetic-input-tokens-mean", str(ISL), "--synthetic-input-tokens-stddev", "0"),
        *("--output-tokens-mean", str(OSL), "--extra-inputs", "ignore_eos:true"),
        *("--tokenizer", server.model_path, "--use-server-token-count", "--ui", "none"),
        *("--output-artifact-dir", str(out)),
    )
    data = json.loads(next(out.rglob("profile_export_aiperf.json")).read_text(encoding="utf-8"))
    lines = next(out.rglob("profile_export.jsonl")).read_text(encoding="utf-8").splitlines()
    requests = [
        monotonic(
            one["metadata"]["request_start_ns"] / 1e9,
            one["metrics"]["time_to_first_token"]["value"],
        )
        for one in map(json.loads, lines)
    ]
    ttft, tpot = data["time_to_first_token"]["p50"], data["inter_token_latency"]["p50"]
    return Said(ttft, tpot, data["output_token_throughput"]["avg"], requests)


def monotonic(start: float, first: float) -> tuple[float, float]:
    """A request as Said has it. start: seconds since the epoch. first: ms after it."""
    start += time.monotonic() - time.time()
    return start, start + first / 1000


def call(*argv: str) -> None:
    """Runs a tool to its end; what it said is shown only when it fails."""
    env = {**os.environ, "NO_PROXY": "127.0.0.1"}
    # AIPerf takes a path for a repository's name when the hub is said to be out of reach.
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{argv[0]} failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
