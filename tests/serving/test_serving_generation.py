"""A generation proves that a server serves, its key that it is the one; nothing less does."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.errors import ServerError
from acceptance.serving.client import client, headers
from acceptance.serving.generation import generate, prove_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Place:
    """A server by address and key, that answers with what it is told to."""

    base_url: str = ""
    api_key: str = "the-key"
    status: int = 200
    body: bytes = b""
    by_key: dict[str, int] = field(default_factory=dict)
    heard: list[tuple[str, str, Any]] = field(default_factory=list)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            key = self.headers.get("authorization", "")
            length = int(self.headers.get("content-length", 0))
            made.heard.append((self.path, key, json.loads(self.rfile.read(length) or b"null")))
            self.send_response(made.by_key.get(key, made.status))
            self.send_header("Content-Length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        made.base_url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        server.shutdown()


def completion(tokens: int) -> bytes:
    return json.dumps({"choices": [{}], "usage": {"completion_tokens": tokens}}).encode()


def test_a_generation_is_greedy_and_of_an_exact_length(place: Place) -> None:
    place.body = completion(7)
    assert generate(place, "m", tokens=7, timeout=5)["usage"] == {"completion_tokens": 7}
    [(path, key, body)] = place.heard
    assert (path, key) == ("/v1/completions", "Bearer the-key")
    wanted = {"model": "m", "max_tokens": 7, "temperature": 0, "ignore_eos": True}
    assert wanted.items() <= body.items()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"EngineCore encountered an issue", "HTTP 500 EngineCore encountered an issue"),
        (401, b"Unauthorized", "HTTP 401"),
        (200, b"<html>welcome</html>", "HTTP 200 <html>welcome</html>"),
        (200, b"", "HTTP 200"),
        (200, b"[]", "HTTP 200 []"),
        (200, b"null", "HTTP 200 null"),
        (200, b'{"usage": null}', "HTTP 200"),
        (200, b'{"choices": [{"text": "x"}]}', "HTTP 200"),
        (200, b'{"usage": {}}', "HTTP 200"),
        (200, completion(0), "a generation of 0 tokens"),
        (200, completion(3), "a generation of 3 tokens"),
        (200, completion(5), "a generation of 5 tokens"),
    ],
)
def test_whatever_else_comes_back_is_no_generation(
    place: Place, status: int, body: bytes, said: str
) -> None:
    place.status, place.body = status, body
    with pytest.raises(ServerError) as caught:
        generate(place, "m", timeout=5)
    assert said in caught.value.happened
    assert "within 5 s" in caught.value.asked


def test_a_long_error_page_is_cut(place: Place) -> None:
    place.status, place.body = 502, b"x" * 100_000
    with pytest.raises(ServerError) as caught:
        generate(place, "m", timeout=5)
    assert len(caught.value.happened) < 400


def test_nobody_and_silence_are_no_generation() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = Place(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(ServerError, match="no generation: ConnectError"):
            generate(place, "m", timeout=5)
        listener.listen()
        with pytest.raises(ServerError, match="no generation: ReadTimeout"):
            generate(place, "m", timeout=0.2)
        with pytest.raises(ServerError, match="/v1/models does not answer: ReadTimeout"):
            prove_identity(place, timeout=0.2)


def test_identity_is_the_key_and_nothing_but_the_key(place: Place) -> None:
    place.by_key, place.status = {"Bearer the-key": 200}, 401
    prove_identity(place)
    assert {key for _, key, _ in place.heard} == {"Bearer the-key", "", "Bearer wrong"}
    assert {path for path, _, _ in place.heard} == {"/v1/models"}


@pytest.mark.parametrize(
    ("by_key", "others", "told"),
    [
        ({}, 200, "the key: HTTP 200, no key: HTTP 200, a wrong key: HTTP 200"),
        ({}, 401, "the key: HTTP 401"),
        ({}, 404, "the key: HTTP 404"),
        ({"Bearer the-key": 200, "Bearer wrong": 200}, 401, "a wrong key: HTTP 200"),
        ({"Bearer the-key": 200, "": 200}, 401, "no key: HTTP 200"),
        ({"Bearer the-key": 200, "": 403}, 401, "no key: HTTP 403"),
    ],
    ids=["open", "another's key", "not vLLM", "any key", "no key needed", "another answer"],
)
def test_any_other_answer_is_another_server(
    place: Place, by_key: dict[str, int], others: int, told: str
) -> None:
    place.by_key, place.status = by_key, others
    with pytest.raises(ServerError, match="not the one that was started") as caught:
        prove_identity(place)
    assert told in caught.value.cause
    assert "the-key" not in str(caught.value)


def test_a_server_without_a_key_is_asked_without_one(place: Place) -> None:
    """An empty one would be a malformed header, which no client sends."""
    place.api_key, place.body = "", completion(4)
    generate(place, "m", timeout=5)
    assert place.heard[0][1] == ""
    assert headers(place) == {}


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://127.1.2.3:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("http://10.0.0.1:8000", True),
        ("https://serving.example/r1", True),
    ],
)
def test_proxies_are_for_other_hosts(
    url: str, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(Place(url), timeout=1) as http:
        assert http.trust_env is trusted
        assert http.base_url.join("x").host in url


def test_polling_reads_certificates_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, count: Callable[[str], list[int]]
) -> None:
    read = count("load_verify_locations")
    for _ in range(3):
        with client(place, timeout=5) as http:
            http.get("/health")
    assert len(read) <= 1


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """count(method): a list that grows with each call of that method of an SSL context."""
    import ssl

    def counting(name: str) -> list[int]:
        calls: list[int] = []
        real = getattr(ssl.SSLContext, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return real(*args, **kwargs)

        monkeypatch.setattr(ssl.SSLContext, name, called)
        return calls

    return counting
