"""A server that dies or hangs is told of once; one that works, however slowly, never."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from serving_world import fake_deployment, until

from acceptance.errors import ServerError
from acceptance.serving import watch
from acceptance.serving.generation import generate
from acceptance.serving.metrics import scrape
from acceptance.serving.shutdown import end_idle
from acceptance.serving.watch import ServerWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.server import Server

    Watched = Callable[..., tuple[Server, list[ServerError]]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, serving: Callable[..., Server]) -> Watched:
    """watched(*faults, **of start): a server, and what its watch has told so far."""
    monkeypatch.setattr(watch, "PERIOD", 0.05)
    monkeypatch.setattr(watch, "METRICS_PERIOD", 0.3)
    monkeypatch.setattr(watch, "SETTLE", 0.3)

    def watching(
        *faults: str, hang: float = 20, **wanted: object
    ) -> tuple[Server, list[ServerError]]:
        server = serving(*faults, deployment=fake_deployment(hang=hang), **wanted)
        told: list[ServerError] = []
        server.watch = ServerWatch(server, told.append)
        return server, told

    return watching


def ask(server: Server, tokens: int = 4) -> threading.Thread:
    """One request in the background; how it ends is its own matter."""

    def asking() -> None:
        with suppress(ServerError):
            generate(server, server.model, tokens=tokens, timeout=10)

    thread = threading.Thread(target=asking, daemon=True)
    thread.start()
    return thread


def only(server: Server, told: list[ServerError]) -> str:
    """The text of the one error, which every check of the server raises from now on."""
    assert until(lambda: told, 20)
    time.sleep(0.5)
    assert len(told) == 1
    with pytest.raises(ServerError) as caught:
        server.check()
    assert caught.value is told[0]
    assert told[0].log == server.log
    return str(told[0])


def test_a_killed_server_is_found(watched: Watched) -> None:
    server, told = watched()
    assert server.custody is not None
    assert server.custody.pid is not None
    os.kill(server.custody.pid, signal.SIGKILL)
    said = only(server, told)
    assert "rehearsal-tp-ep ended with exit code -9 while serving" in said
    assert "cause: killed by SIGKILL: no exception in the log" in said
    assert "try: killed from outside, most often for memory" in said


def test_a_server_that_ends_itself_is_found_with_the_cause(watched: Watched) -> None:
    server, told = watched("exit-while-serving")
    ask(server)
    said = only(server, told)
    assert "ended with exit code 3 while serving" in said
    assert "cause: MemoryError: out of host memory in step" in said


def test_a_dead_engine_is_found_while_idle(watched: Watched) -> None:
    """/health would tell, but nobody asks it; the log says it, and a generation proves it."""
    server, told = watched()
    assert server.custody is not None
    engine = psutil.Process(server.custody.pid).children()[0]
    engine.kill()
    said = only(server, told)
    assert "is broken: its log reports a fatal error; no generation: HTTP 500" in said
    assert "died unexpectedly" in said


def test_an_engine_that_dies_of_a_request_is_found(watched: Watched) -> None:
    server, told = watched("die-while-serving")
    ask(server)
    assert "died unexpectedly" in only(server, told)


def test_a_hang_is_found_though_health_is_fine(watched: Watched) -> None:
    server, told = watched("hang-while-serving", hang=0.6)
    ask(server)
    said = only(server, told)
    assert "is broken: no token for 1 s with requests waiting; no generation: ReadTimeout" in said


def test_a_server_that_answers_nothing_at_all_is_found(watched: Watched) -> None:
    server, told = watched(hang=0.6)
    assert server.custody is not None
    assert server.custody.pid is not None
    os.kill(server.custody.pid, signal.SIGSTOP)
    assert "no generation: ReadTimeout" in only(server, told)


def test_a_server_whose_warden_is_killed_is_found(watched: Watched) -> None:
    server, told = watched("ignores-sigterm")
    assert server.custody is not None
    warden = psutil.Process(server.custody.pid).parent()
    assert warden is not None
    warden.kill()
    assert "warden" in only(server, told)


def test_an_idle_server_is_left_alone(watched: Watched) -> None:
    """Not even asked to generate, which would disturb what is measured."""
    server, told = watched(hang=0.5)
    before = answered(server)
    time.sleep(1.5)
    assert told == []
    assert answered(server) == before
    server.check()


def test_a_server_that_works_slowly_is_left_alone(watched: Watched) -> None:
    """Longer than the hang budget, a token now and then."""
    server, told = watched(hang=0.6, pace=0.2)
    before = answered(server)
    ask(server, tokens=12).join()
    assert told == []
    assert answered(server) == before + 1


def test_a_server_without_metrics_is_asked_instead(watched: Watched) -> None:
    """It cannot show that it works, and a generation can."""
    server, told = watched("metrics-404", hang=0.5)
    time.sleep(1.5)
    assert told == []
    server.check()


def test_a_fatal_word_in_the_log_is_only_a_suspicion(watched: Watched) -> None:
    """A generation clears it."""
    server, told = watched()
    before = answered(server)
    assert server.log is not None
    with server.log.open("a") as log:
        log.write("a client asked: what is an EngineDeadError?\n")
    assert until(lambda: answered(server) == before + 1)
    time.sleep(0.5)
    assert told == []
    assert answered(server) == before + 1


def test_a_server_that_is_ended_on_purpose_is_not_broken(watched: Watched) -> None:
    server, told = watched()
    assert end_idle(server).code == 0
    time.sleep(0.3)
    assert told == []
    server.check()


def answered(server: Server) -> float:
    return scrape(server).sum("vllm:request_success_total")
