"""A package that stands for vLLM where only the shape of its benchmark code matters."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SERVE = """
import argparse, asyncio, json, os, random, signal, sys, time
import numpy as np

print("importing the tool")
if os.environ.get("FAKE_IMPORT") == "fail":
    raise ImportError("libcudart.so.13: cannot open shared object file")
if os.environ.get("FAKE_IMPORT") == "die":
    os.kill(os.getpid(), signal.SIGKILL)

def add_cli_args(parser):
    for name in ("backend", "base-url", "model", "tokenizer", "dataset-name", "request-rate",
                 "ready-check-timeout-sec", "percentile-metrics", "metric-percentiles",
                 "result-dir", "result-filename"):
        parser.add_argument("--" + name)
    parser.add_argument("--tokenizer-mode", default="auto")
    parser.add_argument("--request-id-prefix", default=f"bench-{random.getrandbits(64)}-")
    for name in ("random-input-len", "random-output-len", "num-prompts", "seed"):
        parser.add_argument("--" + name, type=int)
    for name in ("ignore-eos", "save-result", "save-detailed", "trust-remote-code"):
        parser.add_argument("--" + name, action="store_true")
    for name in ("goodput", "metadata"):
        parser.add_argument("--" + name, nargs="+")

def get_tokenizer(name, *, tokenizer_mode, trust_remote_code):
    print("loading tokenizer", name)
    return name

def get_samples(args, tokenizer):
    print("making prompts for seed", args.seed)
    draw = np.random.default_rng(args.seed)
    return [draw.integers(0, 1000, args.random_input_len).tolist() for _ in range(args.num_prompts)]

async def main_async(args):
    random.seed(args.seed)
    np.random.seed(args.seed)
    tokenizer = get_tokenizer(args.tokenizer or args.model, tokenizer_mode=args.tokenizer_mode,
                              trust_remote_code=args.trust_remote_code)
    prompts = get_samples(args, tokenizer)
    mode = os.environ.get("FAKE_MODE", "ok")
    print("measuring,", "key", os.environ.get("OPENAI_API_KEY"))
    print("gpus", repr(os.environ.get("CUDA_VISIBLE_DEVICES")))
    if mode == "hang":
        await asyncio.sleep(300)
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "fail":
        raise ValueError("no such tokenizer")
    if mode == "exit":
        sys.exit(3)
    data = json.loads(os.environ["FAKE_JSON"])
    start = time.perf_counter()
    if mode == "late":  # the event loop does not get to its tasks
        for _ in range(5):
            await asyncio.sleep(0.02)
            time.sleep(0.08)
    else:
        await asyncio.sleep(data["duration"])
    data["start_times"] = [start for _ in data["start_times"]]
    data["prompts"] = prompts
    data["arrivals"] = [float(np.random.gamma(1.0)), random.random()]
    with open(os.path.join(args.result_dir, args.result_filename), "w") as file:
        json.dump(data, file)
    return data
"""
PARSER = "from argparse import ArgumentParser as FlexibleArgumentParser\n"


def write_tool(folder: Path, serve: str = SERVE) -> Path:
    """Writes the package; the folder to put on PYTHONPATH."""
    for name, text in (
        ("vllm/__init__.py", ""),
        ("vllm/benchmarks/__init__.py", ""),
        ("vllm/benchmarks/serve.py", textwrap.dedent(serve)),
        ("vllm/utils/__init__.py", ""),
        ("vllm/utils/argparse_utils.py", PARSER),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
