"""A small project that the suite judges: simulated servers, a benchmark client with the shape of
vLLM's, and a few checks of every area, all of which hold, so that its verdict is known."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("acceptance", "fixtures", "reports")  # what a run imports, read as it is now
VLLM = "0.32.0"
DEPLOYMENTS = ("survival-tp", "survival-dp")

DEPLOYMENT = """
name = "{name}"
model = "deepseek-ai/DeepSeek-R1-0528"
precision = "fp8"
lane = "simulated"
gpus = {{ kind = "H200", count = 8 }}
layout = {{ {layout}, expert = true }}
source = "the survival tests"
[options]
max_model_len = 2048
shutdown_timeout = 2
[budgets]
start = 90
silence = 60
stop = 10
request = 30
hang = 60
[memory]
resident_gib = 4.0
[scale]
length = 0.002
batch = 0.125
time = 1
speed_gated = false
"""

CONFTEST = """
import os
import time

import pytest

from fixtures import PLUGINS

pytest_plugins = PLUGINS

@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    import fixtures.cells
    from acceptance.load import warmup
    from reports.recorder import Recorder

    fixtures.cells.COOL_DOWN = 0.5
    warmup.WarmRule.model_fields["most"].default = 2
    warmup.WarmRule.model_rebuild(force=True)
    write = Recorder.write
    told, clock = [], time.time
    if os.environ.get("SURVIVAL_CLOCK"):
        time.time = lambda: clock() - 3600 * (len(told) > 12)

    def written(self, record):
        # What the suite believes to be on disk, told after it came back.
        write(self, record)
        told.append(record)
        if record.type == "judgement":
            judged = record.judgement
            said = f"{record.check.nodeid} {judged.measurement.name} {judged.outcome}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            handle = os.open(self.run_dir / "said.txt", flags, 0o644)
            os.write(handle, said.encode() + b"\\n")
            os.close(handle)

    Recorder.write = written
"""

CHECKS = """
import time

import pytest
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.serving.generation import generate
from fixtures.judging import not_applicable

LIMIT = Limit(kind=Kind.CEILING, upper=2.0, unit="x", source="the survival tests")

@pytest.mark.parametrize("number", range(4))
def test_answers(server, deployment, judge, number):
    said = generate(server, server.model, tokens=4, timeout=30)
    time.sleep(0.1)
    for name in ("first", "second"):
        judge(Measurement(name=name, value=1.0, unit="x"), limit=LIMIT)
    assert said["choices"]

def test_plain(server, record_check):
    record_check(expected=1, actual=1)

def test_cannot(deployment):
    not_applicable("the deployment does not do this")
"""

CELLS = """
from acceptance.judging.judgement import Kind, Limit

def test_every_request_completes(cell_run, judge_cell):
    limit = Limit(kind=Kind.EXPECTED, expected=cell_run.cell.batch, unit="requests", source="site")
    judge_cell("successful_requests", limit=limit)

def test_every_token_is_generated(cell_run, judge_cell):
    cell = cell_run.cell
    limit = Limit(kind=Kind.EXPECTED, expected=cell.batch * cell.osl, unit="tokens", source="site")
    judge_cell("generated_tokens", limit=limit)
"""

ENDS = """
from contextlib import ExitStack

from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.serving.shutdown import end_idle
from fixtures.servers import start_server

NOBODY = Limit(kind=Kind.CEILING, upper=0, unit="processes", source="the survival tests")

def killed(ended):
    return Measurement(name="killed", value=len(ended.survivors), unit="processes")

def test_ends(server, judge):
    judge(killed(end_idle(server)), limit=NOBODY)

def test_starts_again(server, deployment, run, judge, pytestconfig):
    with ExitStack() as stack:
        again = start_server(deployment, run, pytestconfig, stack, suffix=".restart")
        stack.callback(again.custody.end, deployment.budgets.stop)
        judge(killed(end_idle(again)), limit=NOBODY)
"""

# The tool's shape, and enough of its work that servers, clients and files are real.
TOOL = """
import argparse, asyncio, json, os, time
from types import SimpleNamespace
import aiohttp
import numpy

def add_cli_args(parser):
    for name in ("backend", "base-url", "model", "tokenizer", "dataset-name", "request-rate",
                 "ready-check-timeout-sec", "percentile-metrics", "metric-percentiles",
                 "result-dir", "result-filename"):
        parser.add_argument("--" + name)
    parser.add_argument("--tokenizer-mode", default="auto")
    for name in ("random-input-len", "random-output-len", "num-prompts", "seed"):
        parser.add_argument("--" + name, type=int)
    for name in ("ignore-eos", "save-result", "save-detailed", "trust-remote-code"):
        parser.add_argument("--" + name, action="store_true")
    for name in ("goodput", "metadata"):
        parser.add_argument("--" + name, nargs="+")

def get_tokenizer(name, *, tokenizer_mode, trust_remote_code):
    return name

def get_samples(args, tokenizer):
    draw = numpy.random.default_rng(args.seed)
    return [draw.integers(3, 1000, args.random_input_len).tolist() for _ in range(args.num_prompts)]

async def one(request_func_input, session):
    asked, began, first, count, error = request_func_input, time.perf_counter(), None, 0, ""
    body = {"model": asked.model, "prompt": asked.prompt, "max_tokens": asked.output_len,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with session.post(asked.api_url, json=body) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    first, told = first or time.perf_counter(), json.loads(line[6:])
                    count = (told.get("usage") or {}).get("completion_tokens", count)
    except aiohttp.ClientError as failed:
        error = str(failed)
    ended = time.perf_counter()
    return began, (first or ended) - began, ended - began, count, error

ASYNC_REQUEST_FUNCS = {"vllm": one}

async def main_async(args):
    prompts = get_samples(args, get_tokenizer(args.tokenizer, tokenizer_mode="auto",
                                              trust_remote_code=False))
    await asyncio.sleep(0.2)
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    start = time.perf_counter()
    send, url = ASYNC_REQUEST_FUNCS[args.backend], args.base_url + "/v1/completions"
    asked = [SimpleNamespace(model=args.model, prompt=prompt, api_url=url,
                             output_len=args.random_output_len) for prompt in prompts]
    async with aiohttp.ClientSession(headers=headers) as session:
        told = await asyncio.gather(*(send(one, session=session) for one in asked))
    duration = time.perf_counter() - start
    lengths, errors = [count for *_, count, _ in told], [error for *_, error in told]
    failed = sum(map(bool, errors))
    data = {
        "num_prompts": len(told), "completed": len(told) - failed, "failed": failed,
        "duration": duration,
        "total_input_tokens": len(told) * args.random_input_len,
        "total_output_tokens": sum(lengths),
        "request_throughput": len(told) / duration,
        "output_throughput": sum(lengths) / duration,
        "total_token_throughput": sum(lengths) / duration,
        "input_lens": [args.random_input_len] * len(told), "output_lens": lengths,
        "ttfts": [first for _, first, *_ in told],
        "latencies": [whole for _, _, whole, *_ in told],
        "start_times": [began for began, *_ in told], "errors": errors,
    }
    for name in ("ttft", "tpot", "itl", "e2el"):
        for part in ("mean", "median", "std", "p99"):
            data[part + "_" + name + "_ms"] = 1.0
    with open(os.path.join(args.result_dir, args.result_filename), "w") as file:
        json.dump(data, file)
    with open(os.path.join(args.result_dir, "measured.txt"), "a") as file:
        file.write(args.result_filename + "\\n")
    return data
"""
PARSER = "from argparse import ArgumentParser as FlexibleArgumentParser\n"
PROGRAM = "#!/bin/sh\nexit 9\n"  # never run: servers are simulated, and the client is imported


def build(folder: Path) -> Path:
    """Writes the project below `folder`, with the suite beside it; its own folder."""
    suite, site = folder / "suite", folder / "site"
    for part in PARTS:
        shutil.copytree(
            ROOT / part, suite / part, ignore=shutil.ignore_patterns("__pycache__", "runs")
        )
    (site / "suites").mkdir(parents=True)
    options = "-p no:cacheprovider -p no:schemathesis"
    _write(site / "pytest.ini", f"[pytest]\ntestpaths = suites\naddopts = {options}\n")
    _write(site / "conftest.py", CONFTEST)
    _write(site / "suites/conformance/test_checks.py", CHECKS)
    _write(site / "suites/performance/test_cells.py", CELLS)
    _write(site / "suites/resilience/test_ends.py", ENDS)
    for name, layout in zip(DEPLOYMENTS, ("tensor = 8", "data = 8"), strict=True):
        text = DEPLOYMENT.format(name=name, layout=layout)
        _write(site / "deployments" / f"{name}.toml", text)
    tool = folder / "tool"
    for name, text in (
        ("vllm/__init__.py", ""),
        ("vllm/benchmarks/__init__.py", ""),
        ("vllm/benchmarks/serve.py", TOOL),
        ("vllm/utils/__init__.py", ""),
        ("vllm/utils/argparse_utils.py", PARSER),
        (f"vllm-{VLLM}.dist-info/METADATA", f"Name: vllm\nVersion: {VLLM}\n"),
    ):
        _write(tool / name, textwrap.dedent(text))
    return site


def path_of(folder: Path) -> str:
    """PYTHONPATH of a run."""
    return f"{folder / 'tool'}:{folder / 'suite'}"


def words(*more: str) -> list[str]:
    """The command line of a run of the project."""
    return [
        *(sys.executable, "-m", "pytest", "--deployments=deployments"),
        *("--tier", "smoke", "--vllm", f"{sys.executable} -m vllm", *more),
    ]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
