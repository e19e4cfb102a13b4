"""Clients: which connections they use again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest

from acceptance.serving.client import UNUSED, client, kept

if TYPE_CHECKING:
    from collections.abc import Iterator

VLLM_CLOSES = 5.0  # seconds unused, VLLM_HTTP_TIMEOUT_KEEP_ALIVE of vLLM 0.32


class _Told(BaseHTTPRequestHandler):
    """Says from which port it is asked; /together, when so many ask at once."""

    protocol_version = "HTTP/1.1"
    crowd = Barrier(40, timeout=30)

    def do_GET(self) -> None:
        if self.path == "/together":
            self.crowd.wait()
        said = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Here:
    api_key = ""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}"


@pytest.fixture
def here() -> Iterator[_Here]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Told)
    Thread(target=server.serve_forever, daemon=True).start()
    yield _Here(server.server_address[1])
    server.shutdown()
    server.server_close()


def test_a_connection_is_used_again(here: _Here) -> None:
    with client(here, 5) as made:
        assert made.get("/").text == made.get("/").text


def test_one_that_the_server_may_be_closing_is_not(here: _Here) -> None:
    """Both had 5 seconds, and a request sent at that moment was reset: our false alarm."""
    assert UNUSED < VLLM_CLOSES / 2
    with client(here, 5) as made:
        first = made.get("/").text
        time.sleep(UNUSED + 0.1)
        assert made.get("/").text != first


def test_none_is_closed_for_there_being_many(here: _Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool closes what it thinks too many, even when another thread is about to use it."""
    monkeypatch.setattr("acceptance.serving.client.UNUSED", 60.0)
    crowd = _Told.crowd.parties
    with client(here, 30, limits=kept(crowd)) as made, ThreadPoolExecutor(crowd) as threads:
        first, second = (
            set(threads.map(lambda _: made.get("/together").text, range(crowd))) for _ in range(2)
        )
    assert len(first) == crowd
    assert second == first
