"""What happens to clients and processes when a server is told to end."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import httpx

from acceptance.errors import ObservationError, ServerError
from acceptance.serving.client import client as http_client
from acceptance.serving.generation import generate
from acceptance.serving.metrics import scrape

if TYPE_CHECKING:
    from acceptance.serving.server import Server

# Requests in flight last about this share of the shutdown timeout, so that a server could finish
# them. (vLLM 0.32 kills what outlasts the timeout and leaves those clients waiting for ever.) The
# next share is tried when some had ended before all were running, as on a busy machine.
SHARES = (0.4, 0.6, 0.8)
SPARE = 64  # tokens of the context left for the prompt
COUNTED = 1.0  # seconds by which requests in flight are in the server's metrics


@dataclass
class Client:
    """One request in flight. ended: seconds after SIGTERM until its client heard the end, None
    while it has not. how: what it heard. whole: every token asked for came. begun: its
    first byte was streamed. lasted: seconds from sending to the end."""

    streamed: bool
    ended: float | None = None
    how: str = "heard nothing"
    whole: bool = False
    begun: bool = False
    lasted: float = 0.0


@dataclass(frozen=True)
class Shutdown:
    """seconds: from SIGTERM until no process of the tree was left. code: exit code of the API
    server. survivors: processes that had to be killed. clients: who was being served."""

    seconds: float
    code: int | None
    survivors: tuple[int, ...]
    clients: tuple[Client, ...] = ()


def end_idle(server: Server) -> Shutdown:
    """SIGTERM with nothing in flight, and the stop budget to be gone. Raises ObservationError when
    somebody else ended the server's warden meanwhile."""
    custody = server.custody
    assert custody is not None
    if server.watch is not None:
        server.watch.stop()
    server.ended = custody.end(server.deployment.budgets.stop)
    _must_be_seen(server)
    return Shutdown(server.ended.seconds, server.ended.code, server.ended.survivors)


def end_in_flight(server: Server, streams: int = 2, plain: int = 2) -> Shutdown:
    """SIGTERM while requests run. Clients wait for as long as the stop budget allows.

    Raises ServerError when the requests could not be got running first, ObservationError when one
    had ended before, or somebody else ended the server's warden.
    """
    clock = _Clock()
    if server.watch is not None:
        server.watch.stop()
    tokens, lasted = 0, 0.0
    for share in SHARES:
        if tokens:  # sent before, and ended too early
            tokens = _longer(server, share, tokens, lasted)
        else:
            tokens = _tokens_in_flight(server, share)
        clients, threads = _send(server, clock, tokens, streams, plain)
        early = sum(client.ended is not None for client in clients)
        if not early:
            break
        for thread in threads:
            thread.join(server.deployment.budgets.request)
        lasted = min(client.lasted for client in clients)
    else:
        raise ObservationError(
            f"{early} of {len(clients)} requests had ended before SIGTERM was sent",
            asked=f"requests of {tokens} tokens in flight at SIGTERM",
            log=server.log,
            hint="raise options.shutdown_timeout, by which the requests are measured",
        )
    custody = server.custody
    assert custody is not None
    clock.start = time.monotonic()
    custody.signal(signal.SIGTERM)
    budget = server.deployment.budgets.stop
    for thread in threads:
        thread.join(max(0.1, budget - clock.since()))
    # As they are now: killing what is left of the server lets go of clients that it left hanging.
    heard = tuple(replace(client) for client in clients)
    server.ended = custody.end(max(0.1, budget - clock.since()))
    _must_be_seen(server)
    return Shutdown(clock.since(), server.ended.code, server.ended.survivors, heard)


def _must_be_seen(server: Server) -> None:
    """Who else ends a server's warden ends the server, and not as it was told to."""
    if server.custody is not None and server.custody.lost:
        raise ObservationError(
            f"the end was not the server's own: it {server.custody.fate}", log=server.log
        )


def _send(
    server: Server, clock: _Clock, tokens: int, streams: int, plain: int
) -> tuple[list[Client], list[threading.Thread]]:
    """Streams first: they tell when they run. Returns when all should be running."""
    clients: list[Client] = []
    threads: list[threading.Thread] = []
    for streamed, count in ((True, streams), (False, plain)):
        for _ in range(count):
            clients.append(Client(streamed=streamed))
            asked = (server, clients[-1], clock, tokens)
            threads.append(threading.Thread(target=_ask, args=asked, daemon=True))
            threads[-1].start()
        _wait_running(clients, server)
    clients.sort(key=lambda client: client.streamed)
    return clients, threads


class _Clock:
    start: float = 0.0

    def since(self) -> float:
        return time.monotonic() - self.start


def _tokens_in_flight(server: Server, share: float) -> int:
    """As many tokens as this server makes in this share of its shutdown timeout."""
    options = server.deployment.options
    began = time.monotonic()
    generate(server, server.model, tokens=32, timeout=server.deployment.budgets.request)
    each = (time.monotonic() - began) / 32
    return _fitting(server, int(share * options.shutdown_timeout / each))


def _longer(server: Server, share: float, tokens: int, lasted: float) -> int:
    """As many tokens as would have lasted for this share, and more than there were. lasted:
    seconds that these tokens really took: a busy machine's pace changes from moment to moment."""
    timeout = server.deployment.options.shutdown_timeout
    wanted = tokens * share * timeout / lasted if lasted else 2 * tokens
    return _fitting(server, int(min(max(wanted, 1.5 * tokens), 4 * tokens)))


def _fitting(server: Server, wanted: int) -> int:
    longest = server.deployment.options.max_model_len
    return min(max(64, wanted), (longest or wanted + SPARE) - SPARE)


def _ask(server: Server, client: Client, clock: _Clock, tokens: int) -> None:
    body = {
        "model": server.model,
        "prompt": "The sea",
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": client.streamed,
        **({"stream_options": {"include_usage": True}} if client.streamed else {}),
    }
    limit = server.deployment.budgets.stop + server.deployment.budgets.request
    heard = ""
    began = time.monotonic()
    try:
        with (
            http_client(server, limit) as http,
            http.stream("POST", "/v1/completions", json=body) as said,
        ):
            for text in said.iter_text():
                heard += text
                client.begun = True
        client.how = f"HTTP {said.status_code}"
    except httpx.HTTPError as error:
        client.how = type(error).__name__
    client.lasted = time.monotonic() - began
    client.ended = clock.since() if clock.start else 0.0
    done = "[DONE]" in heard if client.streamed else True
    client.whole = done and f'"completion_tokens":{tokens}' in heard.replace(" ", "")
    if not client.whole:
        client.how += f", {len(heard)} characters of an unfinished answer"


def _wait_running(clients: list[Client], server: Server) -> None:
    """Until every stream has begun and the server counts the others too: a request that has not
    been read at SIGTERM is rightly refused."""
    limit = time.monotonic() + server.deployment.budgets.request
    begun: float | None = None
    while (now := time.monotonic()) < limit:
        if all(client.begun for client in clients if client.streamed):
            begun = begun or now
            unanswered = sum(client.ended is None for client in clients)
            if _running(server) >= unanswered or now - begun > COUNTED:
                return
        time.sleep(0.02)
    raise ServerError(
        f"of {len(clients)} requests not every stream began",
        asked="requests in flight before SIGTERM",
        log=server.log,
    )


def _running(server: Server) -> float:
    try:
        metrics = scrape(server, timeout=COUNTED)  # not to wait until the requests have ended
        return sum(metrics.sum(f"vllm:num_requests_{state}") for state in ("running", "waiting"))
    except ObservationError:
        return 0
