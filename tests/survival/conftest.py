"""One small project for all of these tests, and what its runs leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from survival_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("survival"))
    yield made
    made.end()
