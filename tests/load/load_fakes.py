"""Stand-ins for the tool's file, its executable, and the server it talks to."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from acceptance.load.counters import (
    CACHE_HITS,
    GENERATED,
    PREEMPTED,
    SERVER_ITL,
    SERVER_TTFT,
    SUCCEEDED,
    Counters,
)

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.addresses import Addresses

BATCH, ISL, OSL = 4, 64, 8


def tool_json(batch: int = BATCH, isl: int = ISL, osl: int = OSL) -> dict[str, Any]:
    """What vLLM 0.32's `vllm bench serve --save-result --save-detailed` writes, key for key, for
    a healthy run: TTFT 100 ms, TPOT 10 ms."""
    e2el = 0.1 + 0.01 * (osl - 1)
    data: dict[str, Any] = {
        "date": "20260101-000000",
        "endpoint_type": "vllm",
        "backend": "vllm",
        "label": None,
        "model_id": "m",
        "tokenizer_id": "t",
        "num_prompts": batch,
        "seed": "7",
        "request_rate": 10000.0,
        "burstiness": 1.0,
        "max_concurrency": None,
        "duration": 0.5,
        "completed": batch,
        "failed": 0,
        "total_input_tokens": batch * isl,
        "total_output_tokens": batch * osl,
        "request_throughput": batch / 0.5,
        "request_goodput": batch / 0.5,
        "output_throughput": batch * osl / 0.5,
        "total_token_throughput": batch * (isl + osl) / 0.5,
        "input_lens": [isl] * batch,
        "output_lens": [osl] * batch,
        "ttfts": [0.1] * batch,
        "itls": [[0.01] * (osl - 1)] * batch,
        "latencies": [e2el] * batch,
        "start_times": [1000.0 + 0.001 * i for i in range(batch)],
        "queue_times": [0.0] * batch,
        "generated_texts": ["x"] * batch,
        "errors": [""] * batch,
        "max_output_tokens_per_s": float(batch * osl),
        "max_concurrent_requests": batch,
        "rtfx": 0.0,
    }
    for name, value in (("ttft", 100.0), ("tpot", 10.0), ("itl", 10.0), ("e2el", e2el * 1000)):
        for statistic in ("mean", "median", "p99"):
            data[f"{statistic}_{name}_ms"] = value
        data[f"std_{name}_ms"] = 0.0
    return data


def all_failed(batch: int = BATCH, isl: int = ISL) -> dict[str, Any]:
    """The tool's file when every request was refused, with exit code 0 (vLLM 0.32): only the
    prompts' lengths and the errors are not zero."""
    data = tool_json(batch, isl)
    for key, value in data.items():
        if key.endswith("_ms") or "throughput" in key or key.startswith(("total_", "max_o")):
            data[key] = 0.0 if isinstance(value, float) else 0
    refused = (
        "Traceback (most recent call last):\n"
        '  File "connector.py", line 1322, in _wrap_create_connection\n'
        "aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host 127.0.0.1:9 "
        "ssl:default [Connect call failed ('127.0.0.1', 9)]\n"
    )
    return data | {
        "completed": 0,
        "failed": batch,
        "request_goodput": 0.0,
        "max_concurrent_requests": 0,
        "duration": 0.085,
        "output_lens": [0] * batch,
        "ttfts": [0.0] * batch,
        "itls": [[] for _ in range(batch)],
        "latencies": [0.0] * batch,
        "generated_texts": [""] * batch,
        "errors": [refused] * batch,
    }


def counted(
    generated: float,
    succeeded: float,
    *,
    hits: float = 0.0,
    share: float = 0.5,
    ttft: float = 0.1,
    itl: float = 0.01,
) -> Counters:
    """Counters of two engines, `share` of the tokens on the first. ttft, itl: seconds that the
    server has taken for each request and token so far."""

    def two(value: float, part: float = 0.5) -> dict[str, float]:
        return {"0": value * part, "1": value * (1 - part)}

    return Counters(
        values={
            GENERATED: two(generated, share),
            SUCCEEDED: two(succeeded),
            CACHE_HITS: two(hits),
            PREEMPTED: two(0),
            f"{SERVER_TTFT}_sum": two(ttft * succeeded),
            f"{SERVER_TTFT}_count": two(succeeded),
            f"{SERVER_ITL}_sum": two(itl * (generated - succeeded)),
            f"{SERVER_ITL}_count": two(generated - succeeded),
        }
    )


FAKE_VLLM = """
import json, os, signal, subprocess, sys, time, urllib.request
args = sys.argv[1:]
assert args[:2] == ["bench", "serve"], args
def of(name): return args[args.index(name) + 1]
mode = os.environ["FAKE_MODE"]
print("fake client, key", "given" if os.environ.get("OPENAI_API_KEY") else "absent")
print("rust", os.environ.get("VLLM_USE_RUST_BENCH"))
if mode == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    with open(os.environ["FAKE_PIDS"], "w") as pids:
        pids.write(f"{os.getpid()} {child.pid}")
    time.sleep(300)
if mode == "crash":
    print("ValueError: no such tokenizer")
    sys.exit(3)
if mode != "silent":
    data = json.loads(os.environ["FAKE_JSON"])
    now = time.perf_counter()
    data["start_times"] = [now for _ in data["start_times"]]
    time.sleep(data["duration"])
    with open(os.path.join(of("--result-dir"), of("--result-filename")), "w") as file:
        json.dump(data, file)
    body = json.dumps([data["total_output_tokens"], data["completed"]]).encode()
    urllib.request.urlopen(of("--base-url") + "/fake/served", body)
"""


@dataclass
class CountingServer:
    """An HTTP server with vLLM's counters. status: of /v1/completions. more: further metrics,
    summed over both engines. kv_tokens: of each engine's cache. seen: bodies posted."""

    url: str = ""
    generated: int = 0
    succeeded: int = 0
    status: int = 200
    metrics: bool = True
    more: dict[str, float] = field(default_factory=dict)
    kv_tokens: int | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def text(self) -> str:
        """/metrics, of two engines that share the work evenly."""
        lines = []
        for name, value in (
            (GENERATED, self.generated),
            (SUCCEEDED, self.succeeded),
            (CACHE_HITS, 0),
            (PREEMPTED, 0),
            *self.more.items(),
        ):
            kind = "counter" if name.endswith("_total") else "gauge"
            lines.append(f"# TYPE {name.removesuffix('_total')} {kind}")
            lines += [f'{name}{{engine="{engine}"}} {value / 2}' for engine in "01"]
        if self.kv_tokens is not None:
            told = f'kv_cache_size_tokens="{self.kv_tokens}"'
            lines += [f'vllm:cache_config_info{{engine="{e}",{told}}} 1.0' for e in "01"]
        return "\n".join(lines) + "\n"


@dataclass
class FakeVllm:
    """Stands for acceptance.deployments.installed.Vllm."""

    argv: tuple[str, ...]
    version: Version = field(default_factory=lambda: Version("0.32.0"))
    cpu: bool = True
    python: str = sys.executable


@dataclass
class FakeTarget:
    """A Target whose death is set by hand."""

    deployment: Deployment
    base_url: str
    vllm: Any
    log: Path | None
    api_key: str = "sesame"
    model: str = "served-name"
    model_path: str = "org/tokenizer"
    bench_env: dict[str, str] = field(default_factory=dict)
    dead: Exception | None = None
    node_logs: tuple[Path, ...] = ()
    several: Addresses | None = None

    def check(self) -> None:
        if self.dead:
            raise self.dead
