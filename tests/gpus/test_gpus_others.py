"""Who else is on a leased GPU is found and named; a server's own processes never are."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pynvml
import pytest
from gpus_fake_nvml import GIB, h200s
from gpus_world import World

from acceptance.gpus import whose
from acceptance.gpus.others import others
from acceptance.gpus.probe import ComputeProcess, Unobservable
from acceptance.gpus.telemetry import Span
from acceptance.gpus.whose import Owner, Whose, described

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.gpus.probe import Observed

ALWAYS = Span()
READY = 1001.5  # between the first reading and the second
FOREIGN = 1  # init: there everywhere, and nobody's child
GONE = 999_999_999
MARK = "ACCEPTANCE_OWNER=4711:99"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One GPU on which our server holds 100 GiB, at its first reading."""
    world = World(h200s(1), tmp_path / "t.jsonl")
    world.gpus[0].taken = 100 * GIB
    world.gpus[0].processes = [(os.getpid(), 100 * GIB)]
    world.tick()
    return world


@pytest.fixture(params=["host", "container"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(whose, "sees_host_pids", lambda: request.param == "host")
    return str(request.param)


def found(world: World, ready: float | None = READY, span: Span = ALWAYS) -> Observed[list[str]]:
    return others(world.read(), world.gpus[0].uuid, span, ready)


@pytest.mark.usefixtures("place")
def test_the_server_alone_is_nobody_else(world: World) -> None:
    """However its own memory grows and shrinks."""
    for held in (120, 90, 130, 130):
        world.gpus[0].taken = held * GIB
        world.gpus[0].processes = [(os.getpid(), held * GIB)]
        world.tick()
    assert found(world) == []


def test_a_process_that_arrives_is_found_and_named(world: World, place: str) -> None:
    """In a container by when it came, and at the second reading."""
    world.gpus[0].processes.append((FOREIGN, 10 * GIB))
    world.gpus[0].taken += 10 * GIB
    world.tick()
    if place == "host":
        assert found(world) == [described(ComputeProcess(FOREIGN, 10 * GIB))]
    else:
        assert found(world) == [], "it may have been ending"
    world.tick()
    (told,) = found(world) or [""]
    assert told.startswith("pid 1 (")
    assert told.endswith(", 10.0 GiB)")
    assert found(world, span=Span(end=READY)) == [], "not yet then"


def test_one_that_came_while_the_server_started(world: World, place: str) -> None:
    """A container cannot tell it from the server's own."""
    world.gpus[0].processes.append((FOREIGN, None))
    world.tick()
    world.tick()
    assert len(found(world, ready=1002.5) or []) == (place == "host")
    assert len(found(world, ready=None) or []) == (place == "host")


def test_a_process_that_has_just_ended_is_not_held_against_the_host(
    world: World, place: str
) -> None:
    world.gpus[0].processes.append((GONE, 4 * GIB))
    world.gpus[0].taken += 4 * GIB
    world.tick()
    world.gpus[0].processes.pop()
    world.gpus[0].taken -= 4 * GIB
    world.tick()
    assert found(world) == [], place


@pytest.mark.usefixtures("place")
def test_memory_that_no_listed_process_holds_is_somebody_s(world: World) -> None:
    """One in another container, say. A single reading may only have missed an allocation."""
    world.gpus[0].taken += 10 * GIB
    world.tick()
    assert found(world) == []
    world.tick()
    assert found(world) == ["10.0 GiB more of no process that NVML shows"]


@pytest.mark.usefixtures("place")
def test_what_a_driver_keeps_for_itself_is_nobody_s(world: World) -> None:
    world.gpus[0].taken += GIB // 2
    for _ in range(3):
        world.tick()
    assert found(world) == []
    world.gpus[0].processes = [(os.getpid(), None)]  # nor where a share is not told
    world.gpus[0].taken += 20 * GIB
    world.tick()
    world.tick()
    assert found(world) == []


@pytest.mark.usefixtures("place")
def test_a_list_without_even_the_server_tells_nothing(tmp_path: Path) -> None:
    world = World(h200s(1), tmp_path / "t.jsonl")
    world.tick()
    assert found(world) == [], "an idle GPU has nobody on it"
    world.gpus[0].taken = 100 * GIB
    world.tick()
    answer = found(world)
    assert isinstance(answer, Unobservable)
    assert "not even the server's" in str(answer)


def test_a_list_that_is_refused_is_not_empty(world: World) -> None:
    function = "nvmlDeviceGetComputeRunningProcesses"
    world.gpus[0].errors[function] = pynvml.NVML_ERROR_NO_PERMISSION
    world.tick()
    world.tick()
    answer = found(world, span=Span(start=READY))
    assert isinstance(answer, Unobservable)
    assert answer.error == "NVML_ERROR_NO_PERMISSION"


def test_whose_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whose, "sees_host_pids", lambda: True)
    script = "print(flush=True); import time; time.sleep(60)"
    sleeping = [sys.executable, "-S", "-E", "-c", script]
    name, _, value = MARK.partition("=")
    child = subprocess.Popen(sleeping)
    orphan = subprocess.Popen(sleeping, env={name: value}, stdout=subprocess.PIPE)
    try:
        assert orphan.stdout is not None
        orphan.stdout.readline()  # until it runs it may have no environment yet
        assert Owner(os.getpid()).whose(child.pid) is Whose.OURS
        assert Owner(os.getpid()).whose(os.getpid()) is Whose.OURS
        assert Owner(os.getpid()).whose(FOREIGN) is Whose.FOREIGN
        assert Owner(os.getpid()).whose(GONE) is Whose.UNKNOWN
        assert Owner(child.pid, MARK).whose(orphan.pid) is Whose.OURS, "by its environment"
        assert Owner(child.pid, f"{MARK}0").whose(orphan.pid) is Whose.FOREIGN
        monkeypatch.setattr(whose, "sees_host_pids", lambda: False)
        assert Owner(os.getpid()).whose(child.pid) is Whose.UNKNOWN
    finally:
        for process in (child, orphan):
            process.kill()
            process.communicate()


def test_a_process_that_is_hidden_is_somebody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc mounted with hidepid shows a user nobody's processes but their own."""

    def hidden(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    def forbidden(pid: int, _: int) -> None:
        raise PermissionError

    monkeypatch.setattr(whose, "sees_host_pids", lambda: True)
    monkeypatch.setattr(whose.psutil, "Process", hidden)
    monkeypatch.setattr(whose.os, "kill", forbidden)
    assert Owner(os.getpid()).whose(4711) is Whose.FOREIGN


def test_what_was_ours_a_second_ago_is_not_looked_up_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it holds something else: a process that is new to the GPU is always looked up."""
    asked: list[int] = []
    real = whose.Owner.whose
    monkeypatch.setattr(whose.Owner, "whose", lambda own, pid: asked.append(pid) or real(own, pid))
    world.tick()
    known = list(asked)
    world.tick()
    assert asked == known
    world.gpus[0].processes.append((FOREIGN, 10 * GIB))
    world.tick()
    world.tick()
    assert asked == [*known, FOREIGN, FOREIGN], "whoever is foreign may yet turn out to be ours"
