"""Somebody else on a run's GPUs: cells are invalid, and a server's end is not booked as its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from suites_gpus import STRANGER, B, Gpus

from acceptance.errors import ServerError
from acceptance.gpus.events import GpuEvent
from acceptance.judging.judgement import Window
from fixtures.cells import _with_others
from fixtures.gpus import WATCHES, blame_hardware

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "fp8-8xh200-tp-ep"
DEPLOYMENT: Any = SimpleNamespace(name=NAME)
SHARED = "GPU 1: pid 1 (python of somebody, 10.0 GiB)"


@pytest.fixture
def gpus() -> Gpus:
    return Gpus()


@pytest.fixture
def cell_seen(gpus: Gpus) -> Callable[[float, float], str]:
    """What a cell measured from one second to another says of others."""

    def seen(start: float, end: float) -> str:
        kept: dict[str, str] = {}
        run: Any = SimpleNamespace(
            window=Window(start=start, end=end),
            model_copy=lambda update: kept.update(update) or SimpleNamespace(**kept),
        )
        server: Any = SimpleNamespace(deployment=DEPLOYMENT)
        return _with_others(config(gpus), server, run).others

    return seen


def config(gpus: Gpus) -> Any:
    return SimpleNamespace(stash={WATCHES: {NAME: gpus}})


def blamed(gpus: Gpus, cause: str) -> ServerError:
    error = ServerError("it ended", cause=cause)
    blame_hardware(config(gpus), DEPLOYMENT, error)
    return error


def test_a_cell_tells_who_else_was_there_in_its_window(
    gpus: Gpus, cell_seen: Callable[[float, float], str]
) -> None:
    gpus.reasons = [0] * 20
    assert cell_seen(5, 8) == ""
    gpus.strangers = {B: [STRANGER]}
    assert cell_seen(5, 8) == SHARED
    assert cell_seen(1, 2) == "", "before it came"


def test_a_cell_on_no_gpu_is_left_as_it_is() -> None:
    run: Any = object()
    server: Any = SimpleNamespace(deployment=DEPLOYMENT)
    nothing: Any = SimpleNamespace(stash={})
    assert _with_others(nothing, server, run) is run


def test_a_server_that_ends_beside_somebody_else_is_booked_as_the_host_s(gpus: Gpus) -> None:
    gpus.strangers = {B: [STRANGER]}
    error = blamed(gpus, "torch.OutOfMemoryError")
    assert error.cause == f"host: {SHARED}; its own last words: torch.OutOfMemoryError"
    assert "keep others off" in error.hint


def test_a_sick_gpu_comes_before_a_stranger(gpus: Gpus) -> None:
    gpus.strangers = {B: [STRANGER]}
    gpus.events = [(4.0, GpuEvent(B, "xid", 79))]
    assert blamed(gpus, "").cause == "hardware: Xid 79 (hardware) on GPU 1"


def test_a_server_that_ends_alone_keeps_its_words(gpus: Gpus) -> None:
    unknown = [*STRANGER[:2], "unknown", STRANGER[3]]  # perhaps a second server's, in a container
    gpus.strangers = {B: [unknown]}
    assert blamed(gpus, "KeyError").cause == "KeyError"
