"""A fake server for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance_world import World
from fake_vllm import Twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def world() -> Iterator[World]:
    """A healthy fake server, and what the checks need to judge it."""
    world = started()
    yield world
    world.close()


@pytest.fixture(scope="module")
def worlds() -> Iterator[Callable[[str], World]]:
    """One fake server for each word that breaks it, and one for none, kept for a module: the checks
    ask it once, as in a run."""
    made: dict[str, World] = {}

    def world(word: str = "") -> World:
        if word not in made:
            made[word] = started(word)
        return made[word]

    yield world
    for one in made.values():
        one.close()


def started(word: str = "") -> World:
    twin = Twin()
    if word:
        twin.breaks.add(word)
    twin.start()
    return World(twin)
