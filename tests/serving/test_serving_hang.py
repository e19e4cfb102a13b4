"""Looking for a hang when a client gave up: a server that generates nothing, and those that only
kept one client waiting."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from serving_world import fake_deployment, until

from acceptance.errors import ServerError
from acceptance.serving import hang
from acceptance.serving.generation import generate
from acceptance.serving.hang import look_for_hang, waited_in_vain
from acceptance.serving.metrics import scrape
from acceptance.serving.shutdown import end_idle

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.server import Server

    Serving = Callable[..., Server]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang, "SETTLE", 0.1)
    monkeypatch.setattr(hang, "LOOK", 2.0)


def in_vain(server: Server) -> None:
    """A client that gives up, and takes its request with it."""
    with suppress(ServerError):
        generate(server, server.model, timeout=0.3)


def test_a_hang_is_found_when_no_request_is_left(serving: Serving) -> None:
    server = serving("hang-while-serving", deployment=fake_deployment(hang=1))
    in_vain(server)
    found = look_for_hang(server)
    assert found is not None
    said = "is broken: a client waited in vain, and there was no token for 1 s; no generation: Read"
    assert said in str(found)
    assert found.log == server.log


def test_a_server_that_answers_nothing_at_all_hangs(serving: Serving) -> None:
    server = serving(deployment=fake_deployment(hang=0.5))
    assert server.custody is not None
    pid = server.custody.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert look_for_hang(server) is not None
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_healthy_server_is_cleared_by_one_generation(serving: Serving) -> None:
    server = serving(deployment=fake_deployment(hang=20))
    before = scrape(server).sum("vllm:request_success_total")
    assert look_for_hang(server) is None
    assert scrape(server).sum("vllm:request_success_total") == before + 1


def test_one_engine_that_is_stuck_is_no_hang_of_the_server(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients' own errors are the finding."""
    server = serving("hang-while-serving", deployment=fake_deployment(hang=0.5))
    answers = iter([ServerError("no generation"), None])
    monkeypatch.setattr(hang, "_refused", lambda *_: next(answers))
    layout = server.deployment.layout.model_copy(update={"data": 2})
    server.deployment = server.deployment.model_copy(update={"layout": layout})
    assert look_for_hang(server) is None


def test_a_server_that_works_for_somebody_else_does_not_hang(serving: Serving) -> None:
    """Slower than the hang budget allows a token of ours, and yet not at a standstill."""
    server = serving(deployment=fake_deployment(hang=0.6), pace=0.2)
    other = threading.Thread(
        target=generate, args=(server, server.model), kwargs={"tokens": 10, "timeout": 20}
    )
    other.start()
    assert until(lambda: scrape(server).sum("vllm:num_requests_running") == 1)
    assert look_for_hang(server) is None
    other.join()


def test_a_server_that_was_ended_on_purpose_is_not_asked(serving: Serving) -> None:
    server = serving(deployment=fake_deployment(hang=20))
    server.ended = end_idle(server)
    began = time.monotonic()
    assert look_for_hang(server) is None
    assert time.monotonic() - began < 10


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "vain"),
    [
        (httpx.ReadTimeout("timed out"), True),
        (httpx.PoolTimeout(""), True),
        (TimeoutError(), True),
        (caused(RuntimeError("Request failed"), httpx.ReadTimeout("")), True),
        (AssertionError("2 of 4 requests: ReadTimeout('')"), True),
        (AssertionError("the stream timed out after 3 chunks"), True),
        (AssertionError("7 tokens, not 8"), False),
        (httpx.ConnectError("refused"), False),
        (None, False),
    ],
)
def test_who_waited_in_vain(error: BaseException | None, vain: bool) -> None:
    assert waited_in_vain(error) is vain
