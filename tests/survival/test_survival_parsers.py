"""Whatever a file or an answer holds, its reader says so in the way that it declares."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from survival_fuzz import as_bytes, edited, fuzzed, mutated

from acceptance.conformance.sse import collect
from acceptance.deployments.load import SHIPPED, load_deployments, read_deployment, with_options
from acceptance.errors import InputError, ObservationError
from acceptance.gpus.tail import read_telemetry
from acceptance.judging.known import load_known
from acceptance.judging.references import SHIPPED as REFERENCES
from acceptance.judging.references import load_file
from acceptance.load.result import read_result
from acceptance.serving.cause import CauseFinder, root_cause
from acceptance.serving.facts import Facts
from acceptance.serving.log import LogTail, read_lines
from acceptance.serving.metrics import parse
from acceptance.serving.phases import Phases
from acceptance.serving.window import read_window
from reports.reading import read_results
from reports.recorder import cut_torn, sessions
from reports.ruling import verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator

TP = load_deployments()["rehearsal-tp-ep"]
DATA = Path(__file__).parents[1] / "data"
DEPLOYMENTS = tuple(path.read_text() for path in sorted(SHIPPED.glob("*.toml"))[:6])
REFERENCE_FILES = tuple(path.read_text()[:6000] for path in sorted(REFERENCES.glob("*.toml")))
XFAIL = """
[[xfail]]
deployment = "fp8-*"
check = "test_a"
metric = "tpot_mean_ms"
conditions = { batch = 16 }
reason = "it is slow"
issue = "vllm#1"
expires = 2026-12-31
"""
DEEP = "a = " + "[" * 100_000
HUGE = "a = " + "9" * 5000
LOGS = tuple(
    path.read_text(errors="replace")[:8_000]
    for path in sorted((DATA / "logs").rglob("*"))
    if path.is_file()
)
NEEDLES = (
    "INFO 11-24 05:42:28 [a.py:1] Model loading took , GiB memory and , s\n",
    "(EngineCore pid=1) INFO 11-24 05:42:28 [a.py:1] GPU KV cache size: ,,, tokens\n",
    "(EngineCore pid=1) INFO 11-24 05:42:28 [a.py:1] Maximum concurrency for , tokens "
    "per request: ,x\n",
    "Loading weights took , seconds\n",
    "Loading safetensors checkpoint shards: 1% Completed | 0/0 [00:00<?, ?it/s]\n",
    "[EP Rank 99999/0] Expert parallelism is enabled. Expert placement strategy: linear. "
    "Local/global number of experts: 999999/0\n",
    'Traceback (most recent call last):\n  File "a.py", line 999999999, in f\nKeyError: 1\n',
)


def read_from(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@contextlib.contextmanager
def declared(kind: type[Exception], name: str) -> Iterator[None]:
    """Lets errors of this kind pass, if they name the file."""
    try:
        yield
    except kind as error:
        if name not in str(error):
            raise AssertionError(f"does not name {name}: {error}") from error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@fuzzed
@given(
    text=mutated(DEPLOYMENTS, "\n[options]\n", "\n[scale]\n", "\nlayout = 3\n", "\n[a.b.c]\nd=1\n")
)
@example(text=DEEP)
@example(text=HUGE)
@example(text="name = 2023-02-30")
@example(text='[accepted]\nopen_routes = { "/x" = 3 }\n[layout.tensor.deep]\nx = 1')
def test_deployments(folder: Path, text: str) -> None:
    with declared(InputError, "d.toml"):
        read_deployment(read_from(folder, "d.toml", as_bytes(text)))


@fuzzed
@given(setting=st.text(max_size=40) | mutated(("max_model_len=65536", "kv_cache_dtype=fp8")))
@example(setting="max_model_len=" + "9" * 5000)
def test_options(setting: str) -> None:
    with contextlib.suppress(InputError):
        with_options(TP, [setting])


@fuzzed
@given(
    text=mutated((*REFERENCE_FILES, XFAIL), "\n[[reference]]\n", "\n[[xfail]]\n", "\nxfail = 3\n")
)
@example(text=DEEP)
@example(text=HUGE)
@example(text="reference = [1]")
@example(text="xfail = ['a']")
@example(
    text='[[reference]]\nsource="x"\nmetric="m"\ndeployment="d"\nbaseline=1\ntolerance=1e308\nunit="s"'
)
def test_references(folder: Path, text: str) -> None:
    path = read_from(folder, "r.toml", as_bytes(text))
    for read in (load_file, lambda path: load_known([path])):
        with declared(InputError, "r.toml"):
            for entry in read(path):
                getattr(entry, "limit", str)()


@fuzzed
@given(
    text=mutated((*LOGS, *NEEDLES), *NEEDLES), cut=st.integers(0, 200), limit=st.integers(1, 9000)
)
@example(text="".join(NEEDLES), cut=0, limit=7)
def test_server_logs(folder: Path, text: str, cut: int, limit: int) -> None:
    path = read_from(folder, "s.log", as_bytes(text))
    root_cause(path)
    read_window(path, cut)
    phases, facts, finder, tail = Phases(0.0), Facts(), CauseFinder(), LogTail(path)
    whole = list(read_lines(path))
    pieces = []
    while tail.offset < path.stat().st_size:
        pieces += tail.poll(limit)
    pieces += tail.rest()
    assert [line.text for line in pieces] == [line.text for line in whole]
    for number, line in enumerate(whole):
        phases.feed(line, float(number))
        facts.feed(line)
        finder.feed(line)
        assert not set(line.text) & set("\x00\x1b\r\n")
    assert finder.cause().line or not whole


METRICS = """# HELP vllm:generation_tokens_total Number of tokens.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 12.0
vllm:cache_config_info{block_size="16",engine="0"} 1.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 3.0
vllm:time_to_first_token_seconds_sum{engine="0"} 1.5e-3 1700000000000
"""


@fuzzed
@given(
    text=mutated((METRICS,), "# TYPE a counter\n", 'a{b="c" 1\n', "a{} \n", "a{=} 1\n", "{} 1\n")
)
def test_metrics(text: str) -> None:
    with contextlib.suppress(ObservationError):
        parse(text).by_engine("vllm:generation_tokens_total")


@fuzzed
@given(
    text=mutated(('data: {"a": 1}\n\n: ping\r\n\r\ndata: [DONE]\n\n',), "data:", "\r", "\n\n"),
    size=st.integers(1, 9),
)
def test_server_sent_events(text: str, size: int) -> None:
    """However the bytes are cut, the same is read of them."""
    raw = as_bytes(text)
    whole = collect([raw], 200, "text/event-stream")
    cut = [raw[at : at + size] for at in range(0, len(raw), size)]
    pieces = collect(cut, 200, "text/event-stream")
    assert (pieces.events, pieces.unfinished) == (whole.events, whole.unfinished)


def bench_json() -> dict[str, Any]:
    data: dict[str, Any] = {
        "num_prompts": 2,
        "completed": 2,
        "failed": 0,
        "duration": 0.5,
        "total_input_tokens": 8,
        "total_output_tokens": 8,
        "request_throughput": 4.0,
        "output_throughput": 16.0,
        "total_token_throughput": 32.0,
        "input_lens": [4, 4],
        "output_lens": [4, 4],
        "ttfts": [0.1, 0.1],
        "itls": [[0.1], [0.1]],
        "start_times": [1.0, 1.0],
        "errors": ["", ""],
    }
    for name in ("ttft", "tpot", "itl", "e2el"):
        for part in ("mean", "median", "std", "p99"):
            data[f"{part}_{name}_ms"] = 1.0
    return data


@fuzzed
@given(text=edited(bench_json()).map(json.dumps) | mutated((json.dumps(bench_json()),)))
@example(text="[" * 100_000)
@example(text=json.dumps(bench_json() | {"duration": float("nan")}))
@example(text=json.dumps(bench_json() | {"itls": 3}))
@example(text=json.dumps(bench_json() | {"itls": [["a"], [None]]}))
@example(text=json.dumps(bench_json() | {"ttfts": [None, "x"]}))
@example(text=json.dumps(bench_json() | {"duration": 10**400}))
def test_benchmark_results(folder: Path, text: str) -> None:
    """A number that is none is never taken for one."""
    with declared(ObservationError, "b.json"):
        result = read_result(read_from(folder, "b.json", as_bytes(text)))
        assert result.duration > 0
        assert len(result.good_ttfts()) == len(result.good_latencies())
        result.good_tpots()


RECORDS = tuple(
    json.dumps(line)
    for line in (
        {
            "schema": 1,
            "time": 1.0,
            "type": "run",
            "suite_version": "1",
            "deployments": [{"name": "d", "digest": "x", "lane": "full"}],
        },
        {
            "schema": 1,
            "time": 2.0,
            "type": "judgement",
            "check": {"deployment": "d", "nodeid": "a"},
            "judgement": {"outcome": "PASS", "measurement": {"name": "m", "value": 1.0}},
        },
        {"schema": 1, "time": 2.5, "type": "server", "deployment": "d", "outcome": "failed"},
        {
            "schema": 1,
            "time": 3.0,
            "type": "test",
            "check": {"nodeid": "a"},
            "phase": "call",
            "outcome": "failed",
            "error": "KeyError",
        },
        {
            "schema": 1,
            "time": 4.0,
            "type": "end",
            "finished": True,
            "exit_status": 0,
            "word": "ACCEPTED",
        },
    )
)


@fuzzed
@given(text=mutated(("\n".join(RECORDS) + "\n",), *RECORDS, '"schema": 2', "ACCEPTED", "true"))
@example(text="[" * 100_000)
@example(text='{"schema":1,"time":' + "9" * 5000 + "}")
def test_records(folder: Path, text: str) -> None:
    """Read without an exception; a line that cannot be read keeps the verdict from acceptance."""
    path = read_from(folder, "results.jsonl", as_bytes(text))
    results = read_results(folder)
    verdict = verdict_of(results)
    assert not (results.problems and verdict.accepted)
    cut_torn(path)
    assert path.read_bytes()[-1:] in (b"", b"\n")
    read_from(folder, "run.json", as_bytes(text))
    assert isinstance(sessions(folder), list)


TELEMETRY = tuple(
    json.dumps(line) + "\n"
    for line in (
        {
            "t": 1.0,
            "kind": "begin",
            "gpus": {"GPU-1": {"total": 9, "reserved": 1}},
            "registered": {"GPU-1": [1]},
        },
        {"t": 2.0, "kind": "memory", "free": [5], "samples": 3},
        {"t": 3.0, "kind": "rest", "gpu": "GPU-1", "power_w": 1.0, "clock_reasons": 4},
        {"t": 3.0, "kind": "event", "gpu": "GPU-1", "event": 8, "code": 79},
        {
            "t": 3.0,
            "kind": "missed",
            "gpu": "GPU-1",
            "what": "ecc",
            "unobservable": "no",
            "error": "x",
        },
        {"t": 4.0, "kind": "end", "ticks": 3, "cpu_s": 0.1},
    )
)


@fuzzed
@given(text=mutated(("".join(TELEMETRY),), *TELEMETRY))
@example(text="[" * 100_000 + "\n")
@example(text="3\n")
def test_telemetry(folder: Path, text: str) -> None:
    path = read_from(folder, "t.jsonl", as_bytes(text))
    with declared(ObservationError, "t.jsonl"):
        read_telemetry(path)


def test_telemetry_of_a_sampler_that_was_killed_gives_way_to_the_next(folder: Path) -> None:
    begin, memory, *_, end = TELEMETRY
    torn = begin + memory + memory[:20]
    path = read_from(folder, "t.jsonl", (begin + end + torn + begin + memory).encode())
    found = read_telemetry(path)
    assert len(found.memory) == 2
    assert found.ended is None  # the second sampler has not ended
    path = read_from(folder, "t.jsonl", (torn + "\n" + memory).encode())
    with pytest.raises(ObservationError, match="line 3"):
        read_telemetry(path)
