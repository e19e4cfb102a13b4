"""The server is up, says what it is, and shows nothing that only a developer should reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.routes import ADMIN_READS, admin_routes, known_routes, routes
from acceptance.serving.addresses import metrics_of
from acceptance.serving.metrics import scrape
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import shown, specified

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.live import LiveConfig
    from acceptance.serving.server import Server
    from fixtures.judging import Judge, RecordCheck
    from suites.conformance.asking import Answers

# What the other areas read, and what a person needs to run R1. vLLM 0.32; 0.12 and later.
METRICS = (
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
    *("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:request_success_total"),
    *("vllm:num_preemptions_total", "vllm:prefix_cache_queries_total"),
    *("vllm:prefix_cache_hits_total", "vllm:cache_config_info"),
    *("vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_count"),
    "vllm:e2e_request_latency_seconds_count",
)
OTHER_APIS = ("/v1/embeddings", "/v1/rerank", "/v1/audio/transcriptions")

TOGETHER = Requests()
FINGERPRINTED = [TOGETHER.whole("completion", max_tokens=1) for _ in range(16)]


@check(1)
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


@check(2)
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


@check(5)
def test_metrics(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """/metrics is Prometheus text and has every metric that operators and this suite rely on, of
    every engine.

    Does not prove their values (see performance, which holds them against the client's). Would
    have caught a renamed metric, as vllm:gpu_cache_usage_perc once was.
    """
    kind = http.get(f"{metrics_of(server)[0]}/metrics").headers.get("content-type", "")
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


@check(7)
def test_no_admin_routes(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """Development and administration routes are not there, neither listed nor answering, unless the
    deployment accepts one by name and says why.

    Does not prove that a proxy adds none. Would have caught a server started with
    VLLM_SERVER_DEV_MODE=1, which vLLM's own sweep sets: 23 routes without a key.
    """
    accepted = server.deployment.accepted.open_routes
    listed = admin_routes(routes(http.get("/openapi.json").json()))
    problems = [f"{path} is served" for path in listed if path not in accepted]
    for path in ADMIN_READS:
        status = http.get(path).status_code
        if status != 404 and path not in accepted:
            problems.append(f"GET {path} answers {status}")
    specified(record_check, problems)


@check(72)
@pytest.mark.parametrize("path", OTHER_APIS)
def test_other_apis_are_404(http: httpx.Client, record_check: RecordCheck, path: str) -> None:
    """An API that a generating model does not have is not found, and no server error.

    Does not prove that clients understand it. Would have caught routes that were registered for
    every model and failed with 500.
    """
    status = http.post(path, json={"input": "hello"}).status_code
    record_check(expected=404, actual=status)
    assert status == 404


@check(4)
def test_one_fingerprint(live: LiveConfig, answers: Answers, record_check: RecordCheck) -> None:
    """Every answer carries the same system_fingerprint, whichever replica gave it.

    Does not prove that every replica answered one of them. Would have caught a router with an old
    replica, or one of another layout, behind it.
    """
    if live.fingerprint is None:
        not_applicable("this vLLM, or its --fingerprint-mode, gives no fingerprint")
    found = {answers.whole(request).get("system_fingerprint") for request in FINGERPRINTED}
    expected = {live.fingerprint.text}
    record_check(expected=sorted(expected), actual=sorted(map(str, found)))
    assert found == expected, f"answers carry {found}, not {expected}"


@check(6, inform=True)
def test_routes_are_the_known_ones(server: Server, http: httpx.Client, judge: Judge) -> None:
    """/openapi.json lists the routes that were seen of this version.

    Does not prove that others are wrong: flags add some. Would have caught an upgrade that took a
    route from clients, before they found out.
    """
    known = known_routes(server.version)
    if known is None:
        not_applicable(f"the routes of vLLM {server.version} were not looked at yet")
    listed = {str(route) for route in routes(http.get("/openapi.json").json())}
    problems = [f"{name} is new" for name in sorted(listed - known)]
    problems += [f"{name} is gone" for name in sorted(known - listed)]
    shown(judge, "routes", problems, "acceptance/conformance/routes.toml")


@check(8)
def test_load(http: httpx.Client, record_check: RecordCheck) -> None:
    """/load tells a number of requests of an idle server: none. (vLLM 0.32 answers it whether the
    load is tracked or not.)

    Does not prove that it counts. Would have caught a load balancer fed by a counter that never
    comes down.
    """
    answer = http.get("/load")
    if answer.status_code == 404:
        record_check(expected="none, or 0", actual="none")
        return
    told = answer.json().get("server_load") if answer.status_code == 200 else answer.status_code
    record_check(expected="none, or 0", actual=told)
    assert told == 0, f"/load tells {told} of an idle server"
