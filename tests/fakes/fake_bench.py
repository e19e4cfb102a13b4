"""`vllm bench serve` as far as a cell needs it: real requests, all at once, and the tool's file."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("base-url", "model", "result-dir", "result-filename"):
        parser.add_argument(f"--{name}")
    for name in ("random-input-len", "random-output-len", "num-prompts", "seed"):
        parser.add_argument(f"--{name}", type=int)
    given = parser.parse_known_args()[0]
    drawn = random.Random(given.seed)
    prompts = [
        [drawn.randrange(1000, 100_000) for _ in range(given.random_input_len)]
        for _ in range(given.num_prompts)
    ]
    began = time.perf_counter()
    with ThreadPoolExecutor(given.num_prompts) as pool:
        done = list(pool.map(lambda prompt: ask(given, prompt), prompts))
    seconds = time.perf_counter() - began
    path = Path(given.result_dir) / given.result_filename
    path.write_text(json.dumps(result(given, done, seconds)))


def ask(given: argparse.Namespace, prompt: list[int]) -> tuple[float, list[float]]:
    """When a request was sent, and when each of its tokens came."""
    body = {"model": given.model, "prompt": prompt, "max_tokens": given.random_output_len}
    request = urllib.request.Request(
        f"{given.base_url}/v1/completions",
        json.dumps({**body, "stream": True}).encode(),
        {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    sent = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        return sent, [time.perf_counter() for line in answer if b'"text"' in line]


def result(
    given: argparse.Namespace, done: list[tuple[float, list[float]]], seconds: float
) -> dict[str, object]:
    batch, isl, tokens = len(done), given.random_input_len, sum(len(came) for _, came in done)
    ttfts = [came[0] - sent for sent, came in done]
    latencies = [came[-1] - sent for sent, came in done]
    tpots = [(came[-1] - came[0]) / (len(came) - 1) for _, came in done]
    times = {"ttft": ttfts, "tpot": tpots, "itl": tpots, "e2el": latencies}
    told: dict[str, object] = {}
    for name, values in times.items():
        told |= {f"{part}_{name}_ms": 1e3 * statistics.mean(values) for part in ("mean", "median")}
        told |= {f"p99_{name}_ms": 1e3 * max(values), f"std_{name}_ms": 0.0}
    return told | {
        "num_prompts": batch,
        "completed": batch,
        "failed": 0,
        "duration": seconds,
        "total_input_tokens": batch * isl,
        "total_output_tokens": tokens,
        "request_throughput": batch / seconds,
        "output_throughput": tokens / seconds,
        "total_token_throughput": (batch * isl + tokens) / seconds,
        "input_lens": [isl] * batch,
        "output_lens": [len(came) for _, came in done],
        "ttfts": ttfts,
        "latencies": latencies,
        "start_times": [sent for sent, _ in done],
        "errors": [""] * batch,
    }
