"""How a server ends is judged by what its clients heard and by who stayed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from serving_world import fake_deployment, told_apart, until

from acceptance.errors import ObservationError, ServerError
from acceptance.serving import shutdown
from acceptance.serving.shutdown import end_idle, end_in_flight

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.server import Server


class Watcher:
    """Notes whether the server still lived when watching was stopped."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.alive: list[bool] = []

    def stop(self) -> None:
        assert self.server.custody is not None
        self.alive.append(not self.server.custody.exited)


def test_an_idle_server_ends_at_once(serving: Callable[..., Server]) -> None:
    server = serving()
    watcher = server.watch = Watcher(server)
    ended = end_idle(server)
    assert (ended.code, ended.survivors, ended.clients) == (0, (), ())
    assert 0 < ended.seconds < server.deployment.budgets.stop
    assert server.ended is not None
    assert watcher.alive == [True]
    assert server.pids() == []


def test_an_idle_server_that_ignores_sigterm_is_killed_and_told(
    serving: Callable[..., Server],
) -> None:
    server = serving("ignores-sigterm", deployment=fake_deployment(stop=1.1))
    tree = server.pids()
    ended = end_idle(server)
    assert ended.code == -signal.SIGKILL
    assert sorted(ended.survivors) == sorted(tree)
    assert ended.seconds >= 1.1


def test_requests_in_flight_are_finished(serving: Callable[..., Server]) -> None:
    server = serving(deployment=fake_deployment(shutdown_timeout=5))
    watcher = server.watch = Watcher(server)
    ended = end_in_flight(server, streams=2, plain=1)
    assert [client.streamed for client in ended.clients] == [False, True, True]
    assert all(client.whole for client in ended.clients)
    assert all(client.ended is not None and client.ended > 0 for client in ended.clients)
    assert {client.how for client in ended.clients} == {"HTTP 200"}
    assert (ended.code, ended.survivors) == (0, ())
    assert watcher.alive == [True]


def test_a_server_that_ends_is_not_told_twice(serving: Callable[..., Server]) -> None:
    """Its clients have heard, and a second SIGTERM would find no handler any more."""
    server = serving("drops-handlers", deployment=fake_deployment(shutdown_timeout=5))
    ended = end_in_flight(server, streams=1, plain=1)
    assert (ended.code, ended.survivors) == (0, ())
    assert all(client.whole for client in ended.clients)


def test_clients_that_hang_have_heard_nothing(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the server was killed, which is no answer of its own."""
    monkeypatch.setattr(shutdown, "SHARES", (8,))
    server = serving("clients-hang", deployment=fake_deployment(stop=1.5))
    assert server.custody is not None
    tree = server.custody.processes()
    ended = end_in_flight(server)
    assert [client.ended for client in ended.clients] == [None] * 4
    assert {client.how for client in ended.clients} == {"heard nothing"}
    assert not any(client.whole for client in ended.clients)
    assert ended.code == -signal.SIGKILL
    assert len(ended.survivors) == 3
    assert told_apart(tree) == []


def test_clients_that_are_cut_off_say_so(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that outlast the shutdown timeout."""
    monkeypatch.setattr(shutdown, "SHARES", (8,))
    ended = end_in_flight(serving(), streams=1, plain=1)
    assert ended.code == 0
    for client in ended.clients:
        assert client.ended is not None
        assert not client.whole
        assert "characters of an unfinished answer" in client.how


def test_requests_are_sent_again_by_how_long_they_really_lasted(
    serving: Callable[..., Server],
) -> None:
    server = serving()
    wanted = server.deployment.options.shutdown_timeout * 0.6
    assert shutdown._longer(server, 0.6, 100, wanted / 2) == 200
    assert shutdown._longer(server, 0.6, 100, 10 * wanted) == 150  # never shorter
    assert shutdown._longer(server, 0.6, 100, wanted / 99) == 400  # nor too much at once


def ended(clients: list[shutdown.Client]) -> bool:
    """Whether all have, once they had the time."""
    return until(lambda: all(client.ended is not None for client in clients))


def test_requests_that_end_too_early_prove_nothing(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "_wait_running", lambda clients, _: ended(clients))
    monkeypatch.setattr(shutdown, "_longer", lambda server, share, tokens, lasted: tokens)
    server = serving()
    with pytest.raises(ObservationError, match="4 of 4 requests had ended before SIGTERM"):
        end_in_flight(server)
    assert server.ended is None


def test_requests_that_ended_too_early_are_sent_again(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine is no fault of the server."""
    slow = iter([True, True])
    truly = shutdown._wait_running

    def slow_at_first(clients: list[shutdown.Client], server: Server) -> None:
        truly(clients, server)
        assert not next(slow, False) or ended(clients)

    monkeypatch.setattr(shutdown, "_wait_running", slow_at_first)
    told = end_in_flight(serving())
    assert all(client.ended is not None for client in told.clients)
    assert next(slow, None) is None


def test_a_server_without_requests_in_flight_is_not_ended(serving: Callable[..., Server]) -> None:
    """Nothing would have been shown."""
    server = serving("hang-while-serving", deployment=fake_deployment(request=1.5))
    with pytest.raises(ServerError, match="no generation: ReadTimeout"):
        end_in_flight(server)
    assert server.ended is None
    assert len(server.pids()) == 3
