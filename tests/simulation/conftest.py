"""One honest simulated server for tests that only ask."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The runner of the suite's own checks lives beside the tests of conformance.
sys.path.append(str(Path(__file__).parents[1] / "conformance"))

from simulation_world import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("honest")) as server:
        yield server
