"""Does it end when told to, and tell its clients.

These tests end the deployment's server, so they run last; the second one starts it anew.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.serving.generation import generate
from acceptance.serving.shutdown import Shutdown, end_idle, end_in_flight
from fixtures.judging import unobservable
from fixtures.servers import start_server
from suites.checklist import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge, RecordCheck
    from fixtures.run import Run


@pytest.fixture(scope="session")
def first_answer(server: Server) -> dict[str, Any]:
    """A greedy answer of the session's server, taken before it is ended."""
    return generate(server, server.model, tokens=16, timeout=server.deployment.budgets.request)


@check(82)
def test_idle_server_ends_on_sigterm(
    server: Server, deployment: Deployment, first_answer: dict[str, Any], judge: Judge
) -> None:
    """SIGTERM with nothing in flight: every process is gone within the stop budget.

    Does not prove anything of SIGKILL. Would have caught servers whose engines stay behind and
    keep the GPUs (vllm#55510, vllm#32116).
    """
    _needs_own_server(server)
    _judge_end(judge, end_idle(server), deployment)


@check(82, 83)
def test_restarted_server_is_the_same_and_ends_with_requests_in_flight(
    server: Server,
    deployment: Deployment,
    first_answer: dict[str, Any],
    run: Run,
    judge: Judge,
    record_check: RecordCheck,
    pytestconfig: pytest.Config,
) -> None:
    """A second start answers as the first did; SIGTERM then ends every client in time.

    Clients in flight hear an end within the stop budget, shutdown timeout included; vLLM's default
    of 0 left them hanging for 60 s (vllm#36964). Greedy text and system_fingerprint survive the
    restart. Whether answers come whole is shown and does not gate: vLLM 0.32 drains under TP, and
    breaks them off under DP with several API servers. Does not prove anything of requests that
    outlast the timeout: vLLM 0.32 kills those and leaves their clients waiting.
    """
    _needs_own_server(server)
    with _second_server(deployment, run, pytestconfig) as again:
        said = generate(again, again.model, tokens=16, timeout=deployment.budgets.request)
        expected, actual = _identity(first_answer), _identity(said)
        record_check(expected, actual)
        assert actual == expected
        ended = end_in_flight(again)
    waited = [client.ended for client in ended.clients]
    heard = [client.how for client in ended.clients]
    timeout = deployment.options.shutdown_timeout
    # What outlasts the timeout is killed, and its client hears so a moment later.
    source = f"{deployment.name}: budgets.stop, which covers --shutdown-timeout {timeout}"
    judge(
        Measurement(
            name="clients_answered_whole",
            value=sum(client.whole for client in ended.clients),
            unit="clients",
            evidence={"of": len(ended.clients), "clients": heard},
        ),
        required=False,
    )
    judge(
        Measurement(
            name="client_end_seconds",
            value=None if None in waited else max(w for w in waited if w is not None),
            unit="s",
            evidence={"clients": heard},
        ),
        limit=Limit(kind=Kind.CEILING, upper=deployment.budgets.stop, unit="s", source=source),
    )
    _judge_end(judge, ended, deployment)


def _identity(answer: dict[str, Any]) -> tuple[str, str | None]:
    """Text and fingerprint; None where the version has no fingerprint."""
    return answer["choices"][0]["text"], answer.get("system_fingerprint")


def _needs_own_server(server: Server) -> None:
    if server.attached:
        unobservable("shutdown", "a server that was not started here is not ended here")


@contextmanager
def _second_server(deployment: Deployment, run: Run, config: pytest.Config) -> Iterator[Server]:
    with ExitStack() as stack:
        started = start_server(deployment, run, config, stack, suffix=".restart")
        assert started.custody is not None
        stack.callback(started.custody.end, deployment.budgets.stop)
        yield started


def _judge_end(judge: Judge, ended: Shutdown, deployment: Deployment) -> None:
    """Gone within the budget, and nobody had to be killed for it."""
    evidence = {"exit_code": ended.code, "killed": list(ended.survivors)}
    budget = deployment.budgets.stop
    source = f"{deployment.name}: budgets.stop"
    judge(
        Measurement(
            name="shutdown_survivors",
            value=len(ended.survivors),
            unit="processes",
            evidence=evidence,
        ),
        limit=Limit(kind=Kind.EXPECTED, expected=0, unit="processes", source=source),
    )
    judge(
        Measurement(name="shutdown_seconds", value=ended.seconds, unit="s", evidence=evidence),
        limit=Limit(kind=Kind.CEILING, upper=budget, unit="s", source=source),
    )
