"""What a running server says it is: version, fingerprint, served models, KV cache of each engine.

Read over HTTP, so that it holds for a server that somebody else started too; what only its log
tells (backends, expert parallelism) comes from the facts gathered while it started.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from acceptance.errors import ObservationError
from acceptance.serving.client import client
from acceptance.serving.generation import PROMPT
from acceptance.serving.metrics import Metrics, scrape

if TYPE_CHECKING:
    from acceptance.serving.facts import Facts
    from acceptance.serving.server import Server

CACHE_CONFIG = "vllm:cache_config_info"

# vllm-<version>[-tp<n>][-pp<n>][-dp<n>][-ep]-<hash8>, vLLM 0.32; the field is null before
# vllm PR#40537 (April 2026) and with --fingerprint-mode none.
_FINGERPRINT = re.compile(
    r"vllm-(?P<version>[^-]+)(?P<layout>(?:-(?:tp|pp|dp)\d+|-ep)*)-(?:[0-9a-f]{8}|nohash)"
)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class ServedModel(_Answer):
    """One entry of /v1/models. root: path or name that the weights came from. max_model_len:
    tokens, prompt and output together."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class _Models(_Answer):
    data: list[ServedModel]


class _Version(_Answer):
    version: str


class _Generated(_Answer):
    system_fingerprint: str | None = None


@dataclass(frozen=True)
class Fingerprint:
    """text: as served. version, layout ("tp8-ep", "" for a single rank): None where the text has
    another form than vLLM's full one."""

    text: str
    version: str | None = None
    layout: str | None = None


@dataclass(frozen=True)
class EngineCache:
    """One engine's vllm:cache_config_info. kv_tokens: capacity of its cache; kv_bytes: set only
    where the size was given in bytes. None is a label that is absent or reads "None"."""

    prefix_caching: bool | None = None
    cache_dtype: str | None = None
    gpu_memory_utilization: float | None = None
    kv_tokens: int | None = None
    kv_bytes: int | None = None


@dataclass(frozen=True)
class LiveConfig:
    """engines: by number, as the label has it. facts: from the log, None where there is none."""

    version: str
    fingerprint: Fingerprint | None
    models: tuple[ServedModel, ...]
    engines: dict[str, EngineCache]
    facts: Facts | None


def read_live(server: Server) -> LiveConfig:
    """Asks the server, with one generated token for its fingerprint.

    Raises ObservationError when an endpoint does not answer, or not in vLLM's form.
    """
    with client(server, server.deployment.budgets.request) as http:
        one_token = {"model": server.model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
        fingerprint = _ask(http, _Generated, "/v1/completions", one_token).system_fingerprint
        return LiveConfig(
            version=_ask(http, _Version, "/version").version,
            fingerprint=parse_fingerprint(fingerprint) if fingerprint else None,
            models=tuple(_ask(http, _Models, "/v1/models").data),
            engines=engine_caches(scrape(server)),
            facts=server.startup.facts if server.log is not None else None,
        )


def parse_fingerprint(text: str) -> Fingerprint:
    """Takes a system_fingerprint apart; a text of another form keeps only itself."""
    match = _FINGERPRINT.fullmatch(text)
    if match is None:
        return Fingerprint(text)
    return Fingerprint(text, match["version"], match["layout"].removeprefix("-"))


def engine_caches(metrics: Metrics) -> dict[str, EngineCache]:
    """The cache of each engine. Raises ObservationError when none is exported, or when one engine
    is described in two ways."""
    engines: dict[str, EngineCache] = {}
    for labels in metrics.labels(CACHE_CONFIG):
        number, cache = labels.get("engine", "0"), _cache(labels)
        if engines.setdefault(number, cache) != cache:
            raise ObservationError(
                f"{CACHE_CONFIG} describes engine {number} in two ways",
                asked="GET /metrics",
                cause=f"{engines[number]} and {cache}",
            )
    return engines


def _cache(labels: dict[str, str]) -> EngineCache:
    dtype = labels.get("cache_dtype", "None")
    return EngineCache(
        prefix_caching={"True": True, "False": False}.get(labels.get("enable_prefix_caching", "")),
        cache_dtype=None if dtype == "None" else dtype,
        gpu_memory_utilization=_number(labels.get("gpu_memory_utilization")),
        kv_tokens=_whole(labels.get("kv_cache_size_tokens")),
        kv_bytes=_whole(labels.get("kv_cache_memory_bytes")),
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


_T = TypeVar("_T", bound=_Answer)


def _ask(http: httpx.Client, kind: type[_T], path: str, body: dict[str, Any] | None = None) -> _T:
    """GETs, or POSTs a body, and checks the answer."""
    asked = f"{'POST' if body else 'GET'} {path}"
    try:
        answer = http.post(path, json=body) if body else http.get(path)
        answer.raise_for_status()
        return kind.model_validate_json(answer.content)
    except httpx.HTTPError as error:
        raise ObservationError(f"{path} does not answer: {error!r}", asked=asked) from error
    except ValidationError as error:
        raise ObservationError(f"{path} answers in another form: {error}", asked=asked) from error
