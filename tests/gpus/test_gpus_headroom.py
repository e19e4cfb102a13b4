"""Headroom is the least that was free, growth what did not come back, imbalance what stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gpus_fake_nvml import GIB, h200s
from gpus_world import World

from acceptance.gpus.headroom import growth, headrooms, imbalance
from acceptance.gpus.probe import Unobservable, seen
from acceptance.gpus.telemetry import Span
from suites.memory.longest import Answered, how_many

if TYPE_CHECKING:
    from pathlib import Path

ALWAYS = Span()


def served(tmp_path: Path, gpus: int, *taken: tuple[int, ...]) -> World:
    """taken: GiB of each GPU, second after second from 1001 on."""
    world = World(h200s(gpus), tmp_path / "t.jsonl")
    for row in taken:
        for gpu, gib in zip(world.gpus, row, strict=True):
            gpu.taken = gib * GIB
        world.tick()
    return world


def test_headroom_is_held_against_the_plan(tmp_path: Path) -> None:
    world = served(tmp_path, 1, (0,), (126,), (132,), (127,))
    gpu = world.gpus[0]
    room = seen(headrooms(world.read(), ALWAYS, 0.9)[gpu.uuid])
    assert room.least == gpu.total - gpu.reserved - 132 * GIB
    assert room.planned == pytest.approx(0.1 * gpu.total, abs=1)
    assert room.overrun == room.planned - room.least > 0
    assert room.share == room.least / gpu.total
    early = seen(headrooms(world.read(), Span(end=1002.5), 0.9)[gpu.uuid])
    assert early.overrun is not None
    assert early.overrun < 1 * GIB
    unplanned = seen(headrooms(world.read(), ALWAYS, None)[gpu.uuid])
    assert unplanned.planned is unplanned.overrun is None


def test_what_is_kept_once_is_growth_and_then_no_more(tmp_path: Path) -> None:
    world = served(tmp_path, 1, (126,), (128,), (127,), (127,))
    uuid = world.gpus[0].uuid
    assert growth(world.read(), 1001, 1004) == {uuid: GIB}
    assert growth(world.read(), 1003, 1004) == {uuid: 0}


def test_a_leak_of_one_gib_a_request_grows_for_as_long_as_there_are_requests(
    tmp_path: Path,
) -> None:
    world = served(tmp_path, 1, *((100 + request,) for request in range(17)))
    uuid = world.gpus[0].uuid
    assert growth(world.read(), 1001, 1017) == {uuid: 16 * GIB}
    assert growth(world.read(), 1009, 1017) == {uuid: 8 * GIB}


def test_one_rank_that_holds_more_than_the_others_stands_out(tmp_path: Path) -> None:
    even = served(tmp_path, 4, (126, 126, 126, 126))
    assert imbalance(headrooms(even.read(), ALWAYS, 0.9)) == 0
    (tmp_path / "t.jsonl").unlink()
    odd = served(tmp_path, 4, (130, 126, 126, 126))
    assert imbalance(headrooms(odd.read(), ALWAYS, 0.9)) == 4 * GIB


def test_a_gpu_that_never_answered_has_no_headroom(tmp_path: Path) -> None:
    world = World(h200s(2), tmp_path / "t.jsonl")
    world.gpus[1].lost = True
    world.tick()
    found = headrooms(world.read(), ALWAYS, 0.9)
    lost = found[world.gpus[1].uuid]
    assert isinstance(lost, Unobservable)
    assert lost.error == "NVML_ERROR_GPU_IS_LOST"
    assert isinstance(imbalance(found), Unobservable)
    assert isinstance(growth(world.read(), 1001, 1001)[world.gpus[1].uuid], Unobservable)


@pytest.mark.parametrize(
    ("length", "batched", "count"),
    [(16383, 8192, 2), (65535, 32768, 2), (2047, 8192, 6), (127, 32768, 32)],
)
def test_enough_prompts_fill_a_step(length: int, batched: int, count: int) -> None:
    assert how_many(length, batched) == count


def test_a_prompt_that_was_cut_was_not_served() -> None:
    assert Answered(200, 100).whole(100)
    assert not Answered(200, 99).whole(100)
    assert not Answered(400, -1, "too long").whole(100)
