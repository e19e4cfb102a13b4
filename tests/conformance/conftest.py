"""A fake server for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance_world import World
from fake_vllm import Twin

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world() -> Iterator[World]:
    """A healthy fake server, and what the checks need to judge it."""
    twin = Twin()
    twin.start()
    yield World(twin)
    twin.stop()
