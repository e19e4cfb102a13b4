"""What a cell costs beyond its measured window, by the worker and by the command, in one run.

    python tests/benchmarks/overhead.py [--deployment rehearsal-tp-ep] [--tier smoke] [--rounds 1]

Run with the interpreter that vLLM is installed in (.tox/rehearsal/bin/python). Without a
deployment the server is a stand-in that streams on a schedule. Overhead is the time from asking
for a run to having its result, less the window of its requests; warm-up is the same for both and
not counted. The worker's import is told apart: it happens while a server loads. Prints the ratio
of the overheads; target: at most 0.05.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "load")]

from load_fakes import FakeTarget  # noqa: E402
from load_stream import streaming_server  # noqa: E402

from acceptance.deployments.installed import find_vllm  # noqa: E402
from acceptance.deployments.load import load_deployments  # noqa: E402
from acceptance.deployments.schema import Profile  # noqa: E402
from acceptance.load.bench import run_cell  # noqa: E402
from acceptance.load.cli import CliEngine  # noqa: E402
from acceptance.load.engine import LoadEngine  # noqa: E402
from acceptance.load.worker import BenchWorker  # noqa: E402
from acceptance.load.workloads import cells  # noqa: E402
from acceptance.secrets import Redactor  # noqa: E402
from acceptance.serving.launch import launch, prepare  # noqa: E402

if TYPE_CHECKING:
    from acceptance.load.engine import Engine
    from acceptance.load.target import Target

TARGET = 0.05
STAND_IN = "rehearsal-tp-ep"  # whose cells the stand-in is given


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployment", help="a rehearsal to launch; default: a stand-in")
    parser.add_argument("--tier", default="smoke")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--run-dir", type=Path)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = asked.run_dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vllm = find_vllm()
        deployment = load_deployments()[asked.deployment or STAND_IN]
        client = prepare(deployment, vllm, folder / "client")
        worker = BenchWorker(vllm, client.env, folder / "cells" / "client.log")
        stack.callback(worker.close)
        began = time.monotonic()
        worker.start()
        target: Target
        if asked.deployment:
            server = launch(deployment, Profile.BENCHMARK, vllm, folder, redactor=Redactor())
            assert server.custody is not None
            stack.callback(server.custody.end, deployment.budgets.stop)
            target = server
        else:
            stream = stack.enter_context(streaming_server())
            made: Any = FakeTarget(
                deployment, stream.url, vllm, None, model=deployment.model, bench_env=client.env
            )
            made.model_path = client.model_path
            target = made
        worker.wait_ready()
        print(f"server and worker ready after {time.monotonic() - began:.1f} s")
        compare(target, worker, folder, asked.tier, asked.rounds)
    return 0


def compare(target: Target, worker: BenchWorker, folder: Path, tier: str, rounds: int) -> None:
    """Measures every cell by both, in turn, and prints the table."""
    engines: list[Engine] = [worker, CliEngine()]
    asked = cells(target.deployment, tier)
    over: dict[LoadEngine, list[float]] = {engine.name: [] for engine in engines}
    print(f"{'cell':20} {'engine':8} {'window s':>9} {'overhead s':>11} {'TPOT ms':>8} lag P99 ms")
    for number in range(rounds):
        for place, engine in enumerate(engines):
            runs_folder = folder / engine.name.value
            engine.prepare(target, asked)
            for cell in asked:
                # Another attempt has other prompts: neither engine meets what the other sent.
                attempt = 1 + number * len(engines) + place
                for run in run_cell(target, cell, runs_folder, engine, attempt=attempt):
                    window = run.window.end - run.window.start
                    over[engine.name].append(run.client_seconds - window)
                    lag = run.client.lag_p99_ms
                    print(
                        f"{cell.id:20} {engine.name.value:8} {window:9.2f} "
                        f"{over[engine.name][-1]:11.3f} {run.result.tpot.mean:8.2f} "
                        f"{'-' if lag is None else format(lag, '.2f')}",
                        flush=True,
                    )
    medians = {name: statistics.median(values) for name, values in over.items()}
    ratio = medians[LoadEngine.WORKER] / medians[LoadEngine.CLI]
    told = ", ".join(f"{name.value} {value:.3f} s" for name, value in medians.items())
    print(f"median overhead of a cell: {told}")
    print(f"ratio worker/cli: {ratio:.4f} (target: at most {TARGET})")


if __name__ == "__main__":
    sys.exit(main())
