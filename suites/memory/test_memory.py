"""Does it fit, and is the KV cache as large as it says.

On GPUs, headroom is NVML's to tell; on a CPU, resident memory of the process tree stands for it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.errors import ObservationError
from acceptance.gpus.kv import GIB, LOGGED_GIB_SLACK, check_capacity, kv_shape
from acceptance.gpus.probe import Unobservable
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.serving.metrics import scrape
from fixtures.judging import not_applicable, unobservable

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge


def test_resident_memory_stays_in_budget(
    server: Server, deployment: Deployment, judge: Judge
) -> None:
    """Resident memory of the whole process tree, at its peak so far, holds the declared budget.

    Does not prove GPU headroom, nor that nothing leaks over days. Would have caught vllm#54677
    (about 4 GiB more outside the KV cache, from one release to another) on its CPU side.
    """
    budget = deployment.memory.resident_gib
    if budget is None:
        not_applicable("the deployment declares no budget of resident memory")
    if server.memory is None:
        unobservable("processes", "the server was not started here")
    seen = server.memory.extremes()
    measured = Measurement(
        name="resident_gib",
        value=None if isinstance(seen, Unobservable) else seen.peak_used / GIB,
        unit="GiB",
        evidence={"unobservable": str(seen)}
        if isinstance(seen, Unobservable)
        else {"samples": seen.samples, "growth_bytes": seen.growth},
    )
    limit = Limit(
        kind=Kind.CEILING,
        upper=budget,
        unit="GiB",
        source=f"{deployment.name}: memory.resident_gib",
    )
    judge(measured, limit=limit)


def test_kv_cache_holds_what_its_bytes_allow(
    server: Server, deployment: Deployment, judge: Judge
) -> None:
    """Each engine's kv_cache_size_tokens follows from its bytes and the model's bytes per token.

    Does not prove that every block is usable, only that the two numbers agree. Would have caught a
    cache of another data type than asked (bf16 takes 70,272 bytes a token of R1, fp8 half), and a
    layout that replicates what it should not (vllm#51454).
    """
    config = _model_config(server)
    engines = scrape(server).labels("vllm:cache_config_info")
    for labels in engines:
        engine = labels.get("engine", "0")
        available, slack = _available_bytes(server, deployment, engine)
        block_size = _whole(labels.get("block_size"))
        if not block_size:
            raise ObservationError(f"vllm:cache_config_info tells no block_size: {labels}")
        shape = kv_shape(config, labels.get("cache_dtype", "auto"))
        capacity = check_capacity(
            reported_tokens=_tokens(server, labels),
            available_bytes=available,
            bytes_per_token=shape.bytes_per_token,
            block_size=block_size,
            max_model_len=_max_model_len(server, deployment),
            slack_bytes=slack,
        )
        judge(
            Measurement(
                name="kv_cache_tokens_off",
                value=capacity.off_by,
                unit="tokens",
                evidence={
                    "engine": engine,
                    "reported_tokens": capacity.reported,
                    "bytes_per_token": shape.bytes_per_token,
                    "available_bytes": available,
                },
            ),
            limit=Limit(
                kind=Kind.EXPECTED,
                expected=0,
                unit="tokens",
                source="bytes of the KV cache divided by bytes per token, within block rounding",
            ),
            engine=engine,
        )


def test_kv_cache_holds_declared_concurrency(
    server: Server, deployment: Deployment, judge: Judge
) -> None:
    """As many requests of max_model_len tokens fit each engine's cache as the deployment declares.

    Does not prove that they are served at once. Would have caught deployments whose longest prompt
    did not fit at all (deepseek-ai/DeepSeek-V2#83).
    """
    floor = deployment.memory.max_concurrency_floor
    if floor is None:
        not_applicable("the deployment declares no floor of concurrency")
    longest = _max_model_len(server, deployment)
    for labels in scrape(server).labels("vllm:cache_config_info"):
        judge(
            Measurement(
                name="max_concurrency",
                value=_tokens(server, labels) / longest,
                unit="requests",
                evidence={"max_model_len": longest, "engine": labels.get("engine", "0")},
            ),
            limit=Limit(
                kind=Kind.FLOOR,
                lower=floor,
                unit="requests",
                source=f"{deployment.name}: memory.max_concurrency_floor",
            ),
        )


def _tokens(server: Server, labels: dict[str, str]) -> int:
    """Capacity of one engine's cache: its metric's label, or its log line where a version has no
    such label."""
    engine = labels.get("engine", "0")
    logged = server.startup.facts.kv_cache_tokens
    told = _whole(labels.get("kv_cache_size_tokens"))
    if told is None:
        told = min((n for name, n in logged.items() if _is_of(name, engine)), default=None)
    if told is None:
        unobservable("log", "neither metric nor log tells kv_cache_size_tokens")
    return told


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _is_of(process: str, engine: str) -> bool:
    """Whether a line of this process is about this engine. The only engine has no number."""
    return f"DP{engine}" in process or "DP" not in process


def _model_config(server: Server) -> dict[str, object]:
    """The config.json that was served: of a local folder, or of the hub's cache on this host."""
    folders = (Path(server.model_path), *_cached(server.model_path))
    files = [file for folder in folders if (file := folder / "config.json").is_file()]
    if not files:
        unobservable("checkpoint", f"no config.json of {server.model_path} on this host")
    loaded: dict[str, object] = json.loads(files[0].read_text(encoding="utf-8"))
    return loaded


def _cached(model: str) -> list[Path]:
    """Snapshots of a model in the hub's cache, the newest first."""
    home = os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    snapshots = (hub / f"models--{model.replace('/', '--')}" / "snapshots").glob("*")
    return sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True)


def _available_bytes(server: Server, deployment: Deployment, engine: str) -> tuple[int, int]:
    """Bytes of one engine's cache, and how far off they may be."""
    if deployment.options.kv_cache_gib is not None:
        return int(deployment.options.kv_cache_gib * GIB), 0
    logged = server.startup.facts.available_kv_gib
    mine = [gib for name, gib in logged.items() if _is_of(name, engine)]
    if not mine:
        unobservable("log", "no `Available KV cache memory` line")
    return int(min(mine) * GIB), LOGGED_GIB_SLACK


def _max_model_len(server: Server, deployment: Deployment) -> int:
    asked = deployment.options.max_model_len or server.startup.facts.concurrency_length
    if asked is None:
        raise ObservationError("the server's max_model_len is not known")
    return asked
