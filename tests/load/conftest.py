"""A healthy cell to break, a fake `vllm` that benchmarks nothing, and a server that counts."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from load_fakes import (
    BATCH,
    FAKE_VLLM,
    ISL,
    OSL,
    CountingServer,
    FakeTarget,
    FakeVllm,
    counted,
    tool_json,
)

from acceptance.deployments.schema import Deployment
from acceptance.judging.judgement import Window
from acceptance.load.cellrun import CellRun
from acceptance.load.engine import ClientLoad
from acceptance.load.result import BenchResult
from acceptance.load.warmup import WarmRule, WarmUp
from acceptance.load.workloads import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def rehearsal() -> Deployment:
    """A rehearsal of two data-parallel engines, a tenth of every length, a quarter of batches."""
    return Deployment.model_validate(
        {
            "name": "rehearsal-dp-ep",
            "model": "generated/deepseek-v3-tiny",
            "precision": "bf16",
            "lane": "rehearsal",
            "gpus": {"count": 0},
            "layout": {"data": 2, "expert": True},
            "options": {"max_model_len": 2048},
            "scale": {"length": 0.1, "batch": 0.25, "speed_gated": False},
        }
    )


@pytest.fixture
def healthy(tmp_path: Path) -> CellRun:
    """A cell that breaks no rule, on two engines, with a server log of some clean lines."""
    log = tmp_path / "server.log"
    log.write_text(
        "(APIServer pid=1) ERROR 01-01 00:00:00 [a.py:1] before the window\n"
        "(APIServer pid=1) INFO 01-01 00:00:01 [a.py:1] POST /v1/completions 200 OK\n"
    )
    start = log.read_text().index("(APIServer pid=1) INFO")
    return CellRun(
        cell=Cell(
            id="balanced-b16",
            deployment="rehearsal-dp-ep",
            workload="balanced",
            nominal=16,
            batch=BATCH,
            isl=ISL,
            osl=OSL,
            seed=7,
        ),
        lane="rehearsal",
        ranks=2,
        window=Window(start=10, end=10.5),
        argv=("vllm", "bench", "serve"),
        client=ClientLoad(lag_p99_ms=1.0, lag_max_ms=3.0, cpu_share=0.2),
        result_file=tmp_path / "rehearsal-dp-ep.balanced-b16.json",
        client_log=tmp_path / "client.log",
        server_log=log,
        log_span=(start, log.stat().st_size),
        before=counted(100, 10),
        after=counted(100 + BATCH * OSL, 10 + BATCH),
        warmup=WarmUp(
            rule=WarmRule(), requests=BATCH, isl=ISL, osl=OSL, waves=(1.0, 1.1), steady=True
        ),
        result=BenchResult.model_validate(tool_json()),
    )


@pytest.fixture
def fake_vllm(tmp_path: Path) -> tuple[str, ...]:
    """argv of a client that does what FAKE_MODE says and measures nothing."""
    script = tmp_path / "fake_vllm.py"
    script.write_text(FAKE_VLLM)
    return sys.executable, str(script)


@pytest.fixture
def counting_server() -> Iterator[CountingServer]:
    """A CountingServer that runs for the test."""
    state = CountingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200 if state.metrics else 404, state.text())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/fake/served":
                state.generated += body[0]
                state.succeeded += body[1]
                self.answer(200, "")
                return
            state.seen.append(body)
            state.keys.add(self.headers.get("Authorization", ""))
            self.answer(state.status, "{}")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def target(
    rehearsal: Deployment,
    counting_server: CountingServer,
    fake_vllm: tuple[str, ...],
    tmp_path: Path,
) -> FakeTarget:
    """A living target whose client answers as a healthy one."""
    log = tmp_path / "server.log"
    log.write_text("(APIServer pid=1) INFO 01-01 00:00:01 [a.py:1] ready\n")
    return FakeTarget(
        deployment=rehearsal,
        base_url=counting_server.url,
        vllm=FakeVllm(fake_vllm),
        log=log,
        bench_env={"FAKE_MODE": "ok", "FAKE_JSON": json.dumps(tool_json(4, 100, 100))},
    )
