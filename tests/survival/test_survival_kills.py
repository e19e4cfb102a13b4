"""A seeded sample of the kill matrix; tests/survival/kill_matrix.py is all of it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from survival_world import ALONE, BESIDE, ROWS, Found, break_off

if TYPE_CHECKING:
    from survival_world import World

# Lines of an unbroken run's record; a moment after the end is a kill of nobody.
LINES = {ALONE: 40, BESIDE: 78}
SAMPLE = {
    "pytest: SIGKILL": 3,
    "pytest: SIGINT twice": 5,
    "pytest: terminal closed": 7,
    "warden: SIGKILL": 2,
    "xdist worker: SIGKILL": 1,
}


@pytest.fixture(scope="module")
def trials(world: World) -> dict[str, Found]:
    """All at once: they mostly wait, and several runs on one host are tried by it, too."""
    rows = {row.name: row for row in ROWS if row.name in SAMPLE}
    with ThreadPoolExecutor(len(rows)) as pool:
        found = {
            name: pool.submit(break_off, world, row, LINES[row.words], random.Random(SAMPLE[name]))
            for name, row in rows.items()
        }
        return {name: future.result() for name, future in found.items()}


@pytest.mark.parametrize("name", SAMPLE)
def test_nothing_is_left_and_the_run_goes_on(trials: dict[str, Found], name: str) -> None:
    """No process, port, lock or memory; every judgement that was said is on disk; the resumed run
    ends with the verdict of an unbroken one, and measures no finished cell again."""
    found = trials[name]
    assert found.wrong == []
    assert found.resumed == "SIMULATED"
