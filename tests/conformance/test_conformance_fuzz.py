"""Fuzzing keeps its time, which is that of its requests."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from acceptance.conformance.fuzz import fuzz

schemathesis = pytest.importorskip("schemathesis", reason="in the rehearsal's environment only")

OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "server", "version": "1"},
    "paths": {
        path: {"get": {"responses": {"200": {"description": "fine"}}}} for path in ("/a", "/b")
    },
}


def _fuzzed(seconds: float, pause: float = 0.0) -> Any:
    def answer(_: httpx.Request) -> httpx.Response:
        time.sleep(pause)
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    with httpx.Client(transport=transport, base_url="http://server.test") as client:
        return fuzz(OPENAPI, client, "m", seed=1, examples=2, seconds=seconds, timeout=5)


def test_a_slow_beginning_takes_nothing_from_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it took longer than all of them may, and none was sent: a false alarm."""
    reads = schemathesis.openapi.from_dict

    def slowly(schema: dict[str, Any]) -> Any:
        time.sleep(0.6)
        return reads(schema)

    monkeypatch.setattr(schemathesis.openapi, "from_dict", slowly)
    found = _fuzzed(seconds=0.5)
    assert found.requests
    assert "GET /a" not in found.left


def test_what_the_time_does_not_suffice_for_is_left() -> None:
    found = _fuzzed(seconds=0.01, pause=0.05)
    assert found.requests == 1
    assert found.left == ["GET /b"]
