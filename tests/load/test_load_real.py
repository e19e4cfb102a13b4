"""vLLM's own client both ways, against a server that streams: the same prompts, the same keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from load_fakes import FakeTarget
from load_stream import streaming_server

from acceptance.deployments.installed import Vllm, find_vllm
from acceptance.errors import InputError
from acceptance.load.cli import CliEngine, find_rust_client
from acceptance.load.command import command
from acceptance.load.result import read_result
from acceptance.load.worker import BenchWorker
from acceptance.load.workloads import make_cell, take
from acceptance.rehearsal.checkpoint import ensure_checkpoint
from acceptance.rehearsal.overlay import overlay_env, write_overlay

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.deployments.schema import Deployment
    from acceptance.load.engine import Engine


def installed() -> Vllm | str:
    """The CPU build of this environment, or why there is none."""
    try:
        found = find_vllm()
    except InputError as error:
        return error.happened
    return found if found.cpu else f"vLLM {found.version} is a GPU build"


pytestmark = pytest.mark.skipif(isinstance(installed(), str), reason=f"real vLLM: {installed()}")
DRAWN = {"date", "duration", "latencies", "ttfts", "itls", "start_times", "queue_times"}


def test_worker_and_command_send_the_same_prompts_and_write_the_same_keys(
    rehearsal: Deployment, tmp_path: Path
):
    vllm = installed()
    assert isinstance(vllm, Vllm)
    write_overlay(tmp_path / "overlay", vllm.version)
    env = overlay_env(tmp_path / "overlay")
    cell = make_cell(rehearsal, "balanced-b16")
    cells = [cell, take(cell, 1, 2)]
    sent, written = {}, {}
    with streaming_server() as server:
        target = FakeTarget(
            deployment=rehearsal,
            base_url=server.url,
            vllm=vllm,
            log=None,
            model="generated/tiny",
            model_path=str(ensure_checkpoint()),
            bench_env=env,
        )
        worker = BenchWorker(vllm, env, tmp_path / "worker.log")
        engines: list[Engine] = [worker, CliEngine()]
        worker.prepare(target, cells)
        for engine in engines:
            for one in cells:
                server.prompts.clear()
                file = tmp_path / f"{engine.name}-{one.seed}.json"
                argv = command(target, one, file)
                load = engine.run(target, argv, tmp_path / "client.log", 300, target.check)
                sent[engine.name, one.seed] = sorted(server.prompts)
                written[engine.name, one.seed] = json.loads(file.read_text())
                assert read_result(file).completed == cell.batch
                if engine is worker:
                    assert load.lag_p99_ms is not None
                    assert 0 < (load.cpu_share or 0) < 2
            engine.close()
    assert server.keys == {"Bearer sesame"}
    for one in cells:
        worked, commanded = written["worker", one.seed], written["cli", one.seed]
        assert sent["worker", one.seed] == sent["cli", one.seed]
        assert list(worked) == list(commanded)
        assert worked["input_lens"] == commanded["input_lens"]
        assert worked["output_lens"] == commanded["output_lens"]
        for key, value in commanded.items():
            measured = "ms" in key or "throughput" in key or "goodput" in key or key in DRAWN
            assert measured or key.startswith("max_") or worked[key] == value, key
    first, second = (sent["worker", one.seed] for one in cells)
    assert not set(first) & set(second)


def test_the_cpu_build_has_no_rust_client():
    vllm = installed()
    assert isinstance(vllm, Vllm)
    with pytest.raises(InputError, match="no Rust benchmark client"):
        find_rust_client(vllm)
