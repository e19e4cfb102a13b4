"""Fake servers, ended with the test that started them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from serving_world import start, told_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from acceptance.serving.server import Server


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """serving(*faults, **of start): a ready fake server. Nothing of it outlives the test."""
    started: list[Server] = []

    def starting(*faults: str, **wanted: object) -> Server:
        server = start(tmp_path, *faults, **wanted)  # type: ignore[arg-type]
        started.append(server)
        return server

    yield starting
    for server in started:
        assert server.custody is not None
        if server.watch is not None:
            server.watch.stop()
        server.custody.end(0.1)
        assert told_apart(server.custody.processes()) == []
