"""An engine that is killed, and what is seen of it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from acceptance.conformance.death import Death, kill_engine
from acceptance.errors import ObservationError
from acceptance.serving.launcher import Ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance_world import World


@contextmanager
def engine(*words: str) -> Iterator[psutil.Process]:
    command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()  # until it runs it may have no command line yet
        yield psutil.Process(made.pid)
        made.kill()


def server(world: World, process: psutil.Process, code: int | None) -> Any:
    budgets = SimpleNamespace(hang=0.3, stop=1.0)
    return SimpleNamespace(
        custody=SimpleNamespace(
            processes=lambda: [psutil.Process(), process],
            wait_exit=lambda _: code,
            end=lambda _: Ended(code, 0.1, ()),
        ),
        deployment=SimpleNamespace(budgets=budgets),
        base_url=world.twin.url,
        api_key="the-key",
    )


def test_a_death_that_health_tells(world: World) -> None:
    world.twin.breaks.add("health-503")
    with engine("VLLM::EngineCore") as process:
        death = kill_engine(server(world, process, 1))
        assert process.wait(5) is not None
    assert (death.health, death.code, death.problems()) == (503, 1, [])


def test_a_death_that_nobody_tells(world: World) -> None:
    with engine("VLLM::EngineCore") as process:
        death = kill_engine(server(world, process, None))
    assert death == Death(200, None, None, ())
    assert death.problems() == ["/health still answers 200", "the API server lives on"]


def test_nothing_is_killed_where_no_engine_is_found(world: World) -> None:
    with engine("a worker") as process:
        with pytest.raises(ObservationError, match="no engine"):
            kill_engine(server(world, process, 1))
        assert process.is_running()
