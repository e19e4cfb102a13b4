"""Clients that leave, and more of them than there is room for: nobody's place stays taken, and the
books agree in the end."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from acceptance.conformance.answers import read_answer
from acceptance.conformance.bodies import COMPLETIONS, completion
from acceptance.conformance.limits import limits
from acceptance.serving.client import headers
from acceptance.serving.generation import generate
from acceptance.serving.metrics import scrape
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.holding import beyond_simulation, specified

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

RELEASE = limits()["release"]
PATIENCE = 20.0  # seconds until something is seen to run at all
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
CACHE_USED = "vllm:kv_cache_usage_perc"
ENDLESS = 1500  # tokens; nobody waits for them
BESIDE = 64  # choices of one request
AT_ONCE, AT_ONCE_ON_CPU = 1024, 128  # sequences: vLLM's defaults for an engine, for a CPU's rank


@check(78)
@pytest.mark.parametrize("how", ["in a stream", "waiting for the whole", "in its prompt"])
def test_leaving_frees(
    server: Server, answers: Answers, record_check: RecordCheck, max_model_len: int, how: str
) -> None:
    """A client that closes its connection, in a stream, before a whole answer or while its prompt
    is read, leaves nothing running or waiting within 2 s, and no KV cache in use.

    Does not prove it through a proxy that keeps connections open. Would have caught servers that
    generate for nobody until they are full.
    """
    changes: dict[str, Any] = {"max_tokens": min(ENDLESS, max_model_len // 2), "ignore_eos": True}
    if how == "in a stream":
        changes["stream"] = True
    if how == "in its prompt":
        changes |= {"prompt": [7] * (max_model_len - 8), "max_tokens": 4}
    _idle(server)
    with _connected(server) as line:
        _post(line, server, completion(server.model, **changes))
        if how == "in a stream":
            line.recv(4096)
        elif how == "in its prompt":
            time.sleep(0.05)
        else:
            _until(lambda: _busy(server) > 0)
    specified(record_check, _still_held(server, RELEASE))


@check(78)
def test_leaving_while_waiting(
    server: Server, deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """Clients that leave while their requests wait for room are taken from the queue within 2 s.

    Does not prove how the queue is ordered. Would have caught queues that serve the dead first.
    """
    beyond_simulation(deployment)
    _idle(server)
    waited = 0.0
    lines = [_connected(server) for _ in range(_crowds(deployment))]
    try:
        for line in lines:
            _post(line, server, _crowd(server, 200))
        waited = _most_waiting(server)
    finally:
        for line in lines:
            line.close()
    # Hundreds of sequences are taken down one after the other.
    problems = _still_held(server, RELEASE * len(lines))
    record_check(
        expected="as specified", actual="; ".join(problems) or "as specified", waited=waited
    )
    assert not problems, "; ".join(problems)


@check(80)
def test_over_capacity_waits(
    server: Server, deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """More sequences than run at once all are served, none with an error: the rest waits.

    Does not prove how long (see performance). Would have caught admission that answers 500 or 429
    where the deployment asks for none, and a queue that loses what it holds.
    """
    beyond_simulation(deployment)
    crowds = _crowds(deployment)
    posts = [(COMPLETIONS, _crowd(server, 2)) for _ in range(crowds)]
    found = answers.now(posts)
    statuses = sorted({answer.status_code for answer in found})
    whole = [answer for answer in found if answer.status_code == 200]
    made = [c for answer in whole for c in read_answer(answer)["choices"]]
    problems = [] if statuses == [200] else [f"statuses {statuses}"]
    problems += (
        [] if len(made) == crowds * BESIDE else [f"{len(made)} of {crowds * BESIDE} choices"]
    )
    problems += [
        f"finished by {c['finish_reason']!r}" for c in made if c["finish_reason"] != "length"
    ][:3]
    specified(record_check, problems)


@check(16, 85)
def test_books_agree(server: Server, answers: Answers, record_check: RecordCheck) -> None:
    """Once all is quiet, /metrics has counted the tokens and requests that clients were told of,
    nothing runs or waits, and with data parallelism every engine had work.

    Does not prove that work is spread evenly. Would have caught a rank that is never given any, and
    counters that a dashboard bills by.
    """
    _idle(server)
    before, booked = scrape(server), 3 * server.deployment.layout.data
    found = [a.json() for a in answers.now([(COMPLETIONS, _booked(server)) for _ in range(booked)])]
    _idle(server)
    after = scrape(server)
    usage = [answer["usage"] for answer in found]
    expected = {
        "vllm:generation_tokens_total": sum(one["completion_tokens"] for one in usage),
        "vllm:prompt_tokens_total": sum(one["prompt_tokens"] for one in usage),
        "vllm:request_success_total": len(found),
    }
    counted = {name: after.sum(name) - before.sum(name) for name in expected}
    problems = [
        f"{n} counts {counted[n]:g}, not {e}" for n, e in expected.items() if counted[n] != e
    ]
    idle = [n for n, v in after.by_engine("vllm:request_success_total").items() if not v]
    problems += [f"engine {number} never had a request" for number in idle]
    specified(record_check, problems)


def _booked(server: Server) -> dict[str, Any]:
    return completion(server.model, max_tokens=4, ignore_eos=True)


def _crowds(deployment: Deployment) -> int:
    """Requests of BESIDE choices that together are a quarter more than all engines run at once."""
    layout = deployment.layout
    cpu = deployment.gpus.architecture == "cpu"
    usual = AT_ONCE_ON_CPU * layout.ranks if cpu else AT_ONCE * layout.data
    asked = deployment.options.max_num_seqs
    run = asked * layout.data if asked else usual
    return -(-run * 5 // (4 * BESIDE))


def _crowd(server: Server, tokens: int) -> dict[str, Any]:
    return completion(server.model, n=BESIDE, temperature=1, max_tokens=tokens, ignore_eos=True)


def _connected(server: Server) -> socket.socket:
    """A bare connection, so that leaving is nothing but its end."""
    address = urlsplit(server.base_url)
    if address.scheme != "http" or address.hostname is None:
        not_applicable("the checks leave by plain HTTP alone")
    return socket.create_connection((address.hostname, address.port or 80), timeout=PATIENCE)


def _post(line: socket.socket, server: Server, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    sent = {
        "Host": urlsplit(server.base_url).netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **headers(server),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    line.sendall(f"POST {COMPLETIONS} HTTP/1.1\r\n{head}\r\n".encode() + content)


def _busy(server: Server) -> float:
    metrics = scrape(server)
    return metrics.sum(RUNNING) + metrics.sum(WAITING)


def _until(true: Any) -> None:
    limit = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < limit:
        time.sleep(0.02)


def _idle(server: Server) -> None:
    """Waits for what other tests left in flight."""
    _until(lambda: _busy(server) == 0)


def _most_waiting(server: Server) -> float:
    """The longest queue seen within a second of its beginning."""
    most, limit = 0.0, time.monotonic() + 1.0
    while time.monotonic() < limit and not most:
        most = max(most, scrape(server).sum(WAITING))
        time.sleep(0.05)
    return most


def _still_held(server: Server, within: float) -> list[str]:
    """What is not free in time; a server that has nothing to free still generates."""
    limit = time.monotonic() + within
    while True:
        metrics = scrape(server)
        held = {n: metrics.sum(n) for n in (RUNNING, WAITING, CACHE_USED) if metrics.sum(n) > 0}
        if not held or time.monotonic() > limit:
            break
        time.sleep(0.05)
    problems = [
        f"{name} is {value:g} {within:g} s after the client left" for name, value in held.items()
    ]
    generate(server, server.model, timeout=server.deployment.budgets.request)
    return problems
