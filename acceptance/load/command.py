"""The client's command line and environment for a cell, the same for every way to run it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx

from acceptance.errors import ObservationError
from acceptance.load.goodput import SERVER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

RUST_CLIENT = "VLLM_USE_RUST_BENCH"  # would swap the measuring instrument unseen
KEY = "OPENAI_API_KEY"


def command(target: Target, cell: Cell, result_file: Path) -> tuple[str, ...]:
    """The client's command line for a cell. Raises ObservationError when no vLLM is installed.

    It is the recipe's command, with what makes it repeatable and readable by machine. Sampling is
    left to the model's generation_config, as in the recipe. The ready check is off by name,
    because it sends the first measured request (older versions have it on).
    """
    if target.vllm is None:
        raise ObservationError(
            "no vLLM is installed here to put load on the server",
            asked=f"vllm bench serve for {cell.id} of {cell.deployment}",
            hint="install the server's vLLM version in this environment",
        )
    # What the tool's JSON leaves out.
    metadata = {
        "deployment": cell.deployment,
        "cell": cell.id,
        "dataset": "random",
        "asked_input_len": cell.isl,
        "asked_output_len": cell.osl,
        "seed": cell.seed,
        "temperature": "not sent",
        "client_version": target.vllm.version,
    }
    return (
        *(*target.vllm.argv, "bench", "serve"),
        *("--backend", "vllm"),
        *("--base-url", target.base_url),
        *("--model", target.model),
        *("--tokenizer", target.model_path),
        *("--dataset-name", "random"),
        *("--random-input-len", str(cell.isl)),
        *("--random-output-len", str(cell.osl)),
        *("--request-rate", "10000"),
        *("--num-prompts", str(cell.batch)),
        "--ignore-eos",
        *("--seed", str(cell.seed)),
        *("--ready-check-timeout-sec", "0"),
        *("--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--metric-percentiles", "99"),
        *("--goodput", f"ttft:{SERVER.ttft_ms:g}", f"tpot:{SERVER.tpot_ms:g}"),
        *("--save-result", "--save-detailed"),
        *("--result-dir", str(result_file.parent)),
        *("--result-filename", result_file.name),
        *("--metadata", *(f"{key}={value}" for key, value in metadata.items())),
    )


def arguments(argv: tuple[str, ...]) -> list[str]:
    """What follows `vllm bench serve` in a command of command()."""
    return list(argv[argv.index("bench") + 2 :])


def environment(
    target: Target, base: Mapping[str, str] | None = None, *, rust: bool = False
) -> dict[str, str]:
    """The client's whole environment: ours (or base), the target's additions, and the key.

    A key of ours for somewhere else is not passed on, and a proxy is not asked for loopback.
    """
    env = client_environment(target.bench_env, base)
    if target.api_key:
        env[KEY] = target.api_key
    if rust:
        env[RUST_CLIENT] = "1"
    host = httpx.URL(target.base_url).host
    if host in ("127.0.0.1", "localhost", "::1"):
        env.update(no_proxy_for(env, host))
    return env


def client_environment(
    additions: Mapping[str, str], base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Ours (or base) and the additions, without a key and without another instrument."""
    env = {**(os.environ if base is None else base), **additions, "PYTHONUNBUFFERED": "1"}
    for name in (RUST_CLIENT, KEY):
        env.pop(name, None)
    return env


def no_proxy_for(env: Mapping[str, str], *hosts: str) -> dict[str, str]:
    """The variables that keep a proxy away from these hosts, in both spellings."""
    return {
        name: ",".join(filter(None, (env.get(name), *hosts))) for name in ("NO_PROXY", "no_proxy")
    }
