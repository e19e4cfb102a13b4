"""The shutdown checks: servers that end as promised, and servers that do not."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from proofs import broken, healthy
from suites_world import World, deployment, plain

import suites.resilience.test_shutdown as shutdown
from acceptance.errors import ServerError
from acceptance.judging.judgement import Outcome
from acceptance.serving.launcher import Ended
from acceptance.serving.shutdown import Client, Shutdown
from fixtures.judging import OptionalSkip
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.serving.server import Server

ANSWER = {
    "choices": [{"text": " Paris, and the sea"}],
    "system_fingerprint": "vllm-0.32.0-tp2-ep-6ec0ee58",
    "usage": {"completion_tokens": 16},
}


def heard(seconds: float | None, *, streamed: bool = True, whole: bool = True) -> Client:
    how = "heard nothing" if seconds is None else "HTTP 200"
    return Client(streamed=streamed, ended=seconds, how=how, whole=whole, begun=True)


class Watch:
    stopped = False

    def stop(self) -> None:
        self.stopped = True


class TestIdle:
    """test_idle_server_ends_on_sigterm."""

    def check(self, world: World, ended: Ended) -> Server:
        budgets = []

        def end(budget: float) -> Ended:
            budgets.append(budget)
            return ended

        watch = Watch()
        server = world.server(custody=SimpleNamespace(end=end, lost=False), watch=watch)
        shutdown.test_idle_server_ends_on_sigterm(server, world.deployment, ANSWER, world.judge)
        assert budgets == [world.deployment.budgets.stop]
        assert watch.stopped, "an end on purpose is no death"
        return server

    @healthy(shutdown.test_idle_server_ends_on_sigterm)
    def test_gone_in_time(self, world: World) -> None:
        server = self.check(world, Ended(0, 3.0, ()))
        assert world.outcomes == {
            "shutdown_survivors": Outcome.PASS,
            "shutdown_seconds": Outcome.PASS,
        }
        assert server.ended == Ended(0, 3.0, ())

    @broken(shutdown.test_idle_server_ends_on_sigterm)
    def test_engines_stay_behind(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match="shutdown_survivors: 2 processes, expected 0"):
            self.check(world, Ended(0, 3.0, (4711, 4712)))
        assert world.judged["shutdown_survivors"].measurement.evidence["killed"] == [4711, 4712]

    @broken(shutdown.test_idle_server_ends_on_sigterm)
    def test_too_slow(self, world: World) -> None:
        with pytest.raises(JudgementFailed, match=r"shutdown_seconds: 20\.5 s, at most 20 s"):
            self.check(world, Ended(0, 20.5, ()))

    def test_of_somebody_else_is_not_ended(self, world: World) -> None:
        server = world.server(custody=None)
        with pytest.raises(pytest.skip.Exception, match="shutdown is not observable") as skip:
            shutdown.test_idle_server_ends_on_sigterm(server, world.deployment, ANSWER, world.judge)
        assert not isinstance(skip.value, OptionalSkip)


class TestRestarted:
    """test_restarted_server_is_the_same_and_ends_with_requests_in_flight."""

    @pytest.fixture
    def check(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The check on a second server that answers, and ends, like this."""
        ends: list[float] = []

        def checking(
            ended: Shutdown | Exception, answer: dict[str, Any] | None = None, **known: Any
        ) -> list[float]:
            custody = SimpleNamespace(end=ends.append)
            again = world.server(custody=custody)

            def start(*_: Any, suffix: str) -> Server:
                assert suffix == ".restart", "its log must not overwrite the first one's"
                return again

            def end(server: Server) -> Shutdown:
                assert server is again
                if isinstance(ended, Exception):
                    raise ended
                return ended

            monkeypatch.setattr(shutdown, "start_server", start)
            monkeypatch.setattr(shutdown, "generate", lambda *_, **__: answer or ANSWER)
            monkeypatch.setattr(shutdown, "end_in_flight", end)
            shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight(
                world.server(**known),
                world.deployment,
                ANSWER,
                world.run,
                world.judge,
                world.record_check,
                SimpleNamespace(),  # type: ignore[arg-type]
            )
            return ends

        checking.ends = ends  # type: ignore[attr-defined]
        return checking

    @healthy(shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight)
    def test_the_same_and_in_time(self, world: World, check: Any) -> None:
        check(Shutdown(6.0, 0, (), (heard(4.0), heard(5.0, streamed=False))))
        assert world.outcomes == {
            "clients_answered_whole": Outcome.UNGATED,
            "client_end_seconds": Outcome.PASS,
            "shutdown_survivors": Outcome.PASS,
            "shutdown_seconds": Outcome.PASS,
        }
        assert not world.judged["clients_answered_whole"].required
        assert world.judged["client_end_seconds"].measurement.value == 5.0
        assert check.ends, "the second server is ended whatever the check says"

    @broken(shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight)
    @pytest.mark.parametrize(
        "answer",
        [
            {**ANSWER, "choices": [{"text": " London"}]},
            {**ANSWER, "system_fingerprint": "vllm-0.32.0-dp2-ep-00000000"},
            {**ANSWER, "system_fingerprint": None},
        ],
        ids=["text", "fingerprint", "no fingerprint"],
    )
    def test_answers_differently(self, world: World, check: Any, answer: dict[str, Any]) -> None:
        with pytest.raises(AssertionError) as failed:
            check(Shutdown(6.0, 0, ()), answer)
        assert not isinstance(failed.value, JudgementFailed)
        assert world.seen["expected"] != world.seen["actual"]
        assert check.ends

    @broken(shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight)
    @pytest.mark.parametrize("silent", [0, 1], ids=["the first", "the last"])
    def test_a_client_never_hears_an_end(self, world: World, check: Any, silent: int) -> None:
        clients = [heard(4.0), heard(5.0)]
        clients[silent] = heard(None, whole=False)
        with pytest.raises(JudgementFailed, match="client_end_seconds: the value is missing"):
            check(Shutdown(20.0, 0, (), tuple(clients)))
        assert world.outcomes["client_end_seconds"] is Outcome.INVALID
        assert "heard nothing" in world.judged["client_end_seconds"].measurement.evidence["clients"]

    @broken(shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight)
    def test_a_client_hears_it_too_late(self, world: World, check: Any) -> None:
        with pytest.raises(JudgementFailed, match=r"client_end_seconds: 20\.4 s, at most 20 s"):
            check(Shutdown(6.0, 0, (), (heard(4.0), heard(20.4))))

    @broken(shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight)
    @pytest.mark.parametrize(
        ("ended", "metric"),
        [
            (Shutdown(6.0, 0, (4711,), (heard(4.0),)), "shutdown_survivors"),
            (Shutdown(21.0, 0, (), (heard(4.0),)), "shutdown_seconds"),
        ],
    )
    def test_it_does_not_end(self, world: World, check: Any, ended: Shutdown, metric: str) -> None:
        with pytest.raises(JudgementFailed, match=metric):
            check(ended)
        assert world.outcomes[metric] is Outcome.FAIL

    @broken(shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight)
    def test_requests_could_not_be_got_running(self, check: Any) -> None:
        with pytest.raises(ServerError):
            check(ServerError("of 4 requests not every stream began"))
        assert check.ends

    def test_of_somebody_else_is_not_restarted(self, check: Any) -> None:
        with pytest.raises(pytest.skip.Exception, match="shutdown is not observable"):
            check(Shutdown(1.0, 0, ()), custody=None)


@contextmanager
def serving(*, answers: bool) -> Iterator[tuple[str, threading.Event]]:
    """A server that streams slowly until it is told to end; then it answers, or says no more."""
    told, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            stream, short = b'"stream":true' in raw.replace(b" ", b""), b'"max_tokens":32' in raw
            self.send_response(200)
            self.end_headers()
            if stream:
                self.wfile.write(b"data: {}\n\n")
            if not short:
                told.wait(30)
                if not answers:
                    over.wait(30)
                    return
            tokens = 32 if short else 64
            self.wfile.write(b'{"usage":{"completion_tokens":%d}}' % tokens)
            if stream:
                self.wfile.write(b"\n\ndata: [DONE]\n\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}", told
    over.set()
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "left hanging"])
def test_what_real_clients_hear_is_what_is_judged(
    world: World, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Real requests to a real port, with only processes left out."""
    world.deployment = deployment(
        options={"shutdown_timeout": 1, "max_model_len": 128}, budgets={"stop": 2.0, "request": 9.0}
    )
    with serving(answers=answers) as (url, told):
        custody = SimpleNamespace(
            signal=lambda _: told.set(),
            end=lambda _: Ended(0, 0.1, ()),
            exited=False,
            lost=False,
        )
        again = world.server(base_url=url, custody=custody)
        monkeypatch.setattr(shutdown, "start_server", lambda *_, **__: again)
        monkeypatch.setattr(shutdown, "generate", lambda *_, **__: ANSWER)
        began = time.monotonic()

        def checking() -> None:
            shutdown.test_restarted_server_is_the_same_and_ends_with_requests_in_flight(
                world.server(),
                world.deployment,
                ANSWER,
                world.run,
                world.judge,
                world.record_check,
                SimpleNamespace(),  # type: ignore[arg-type]
            )

        if answers:
            checking()
            assert world.outcomes["client_end_seconds"] is Outcome.PASS
            assert world.judged["clients_answered_whole"].measurement.value == 4
            return
        with pytest.raises(JudgementFailed, match="client_end_seconds: the value is missing"):
            checking()
        assert world.judged["clients_answered_whole"].measurement.value == 0
        assert time.monotonic() - began < 30


def test_the_first_answer_is_greedy_and_long_enough_to_tell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def generate(server: Server, model: str, **how: Any) -> dict[str, Any]:
        asked.update(how, model=model)
        return ANSWER

    monkeypatch.setattr(shutdown, "generate", generate)
    assert plain(shutdown.first_answer)(world.server()) == ANSWER
    assert asked["tokens"] >= 16
    assert asked["model"] == world.deployment.model
