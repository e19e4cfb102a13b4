"""Worlds for the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from suites_world import World, deployment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    """rehearsal-tp-ep, with nothing judged yet."""
    return World(deployment(), tmp_path)


@pytest.fixture(autouse=True)
def config_of_a_run(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """What unobservable() looks at where it is given no request."""
    monkeypatch.setattr("fixtures.judging._CONFIG", [world.request.config])
