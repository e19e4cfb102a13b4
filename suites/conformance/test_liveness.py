"""The server is up, says what it is, and shows nothing that only a developer should reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.routes import ADMIN_READS, admin_routes, routes
from acceptance.serving.metrics import scrape
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck

# What the other areas read, and what a person needs to run R1. vLLM 0.32; 0.12 and later.
METRICS = (
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
    *("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:request_success_total"),
    *("vllm:num_preemptions_total", "vllm:prefix_cache_queries_total"),
    *("vllm:prefix_cache_hits_total", "vllm:cache_config_info"),
    *("vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_count"),
    "vllm:e2e_request_latency_seconds_count",
)


def test_health(http: httpx.Client, record_check: RecordCheck) -> None:
    """/health answers 200 with an empty body.

    Does not prove that anything can be generated: a hung engine answers the same (vllm#39863), and
    the server's watch generates instead. Would have caught an engine that is known to be dead,
    told by 503 since vllm PR#24897.
    """
    answer = http.get("/health")
    actual = f"HTTP {answer.status_code}, {len(answer.content)} bytes"
    record_check(expected="HTTP 200, 0 bytes", actual=actual)
    assert actual == "HTTP 200, 0 bytes"


def test_version_endpoint(http: httpx.Client, record_check: RecordCheck) -> None:
    """/version answers JSON with one version.

    Does not prove that it is the right one (see test_live_config). Would have caught a proxy that
    answers for paths it does not know.
    """
    answer = http.get("/version")
    problems = [] if answer.status_code == 200 else [f"HTTP {answer.status_code}"]
    if not answer.headers.get("content-type", "").startswith("application/json"):
        problems.append(f"content type is {answer.headers.get('content-type')!r}")
    elif list(answer.json()) != ["version"] or not answer.json()["version"]:
        problems.append(f"says {answer.text[:200]}")
    specified(record_check, problems)


def test_metrics(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """/metrics is Prometheus text and has every metric that operators and this suite rely on, of
    every engine.

    Does not prove their values (see performance, which holds them against the client's). Would
    have caught a renamed metric, as vllm:gpu_cache_usage_perc once was.
    """
    kind = http.get("/metrics").headers.get("content-type", "")
    problems = [] if kind.startswith("text/plain") else [f"content type is {kind!r}"]
    metrics = scrape(server)
    exported = {sample.name for sample in metrics.samples}
    problems += [f"no {name}" for name in METRICS if name not in exported]
    engines = server.deployment.layout.data
    problems += [
        f"{name} of {len(metrics.by_engine(name))} engines, not {engines}"
        for name in METRICS
        if name in exported and len(metrics.by_engine(name)) != engines
    ]
    specified(record_check, problems)


def test_no_admin_routes(http: httpx.Client, record_check: RecordCheck) -> None:
    """Development and administration routes are not there: neither listed nor answering.

    Does not prove that a proxy adds none. Would have caught a server started with
    VLLM_SERVER_DEV_MODE=1, which vLLM's own sweep sets: 23 routes without a key.
    """
    problems = [
        f"{path} is served" for path in admin_routes(routes(http.get("/openapi.json").json()))
    ]
    for path in ADMIN_READS:
        status = http.get(path).status_code
        if status != 404:
            problems.append(f"GET {path} answers {status}")
    specified(record_check, problems)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/audio/transcriptions"])
def test_other_apis_are_404(http: httpx.Client, record_check: RecordCheck, path: str) -> None:
    """An API that a generating model does not have is not found, and no server error.

    Does not prove that clients understand it. Would have caught routes that were registered for
    every model and failed with 500.
    """
    status = http.post(path, json={"input": "hello"}).status_code
    record_check(expected=404, actual=status)
    assert status == 404
