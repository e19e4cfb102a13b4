"""GPUs of two nodes under one deployment: each keeps its own name, readings and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from gpus_fake_nvml import GIB, b200s, h200s
from gpus_world import World

from acceptance.gpus.headroom import Headroom, growth, headrooms
from acceptance.gpus.health import examine, returned
from acceptance.gpus.held import Found
from acceptance.gpus.probe import Gpu
from acceptance.gpus.telemetry import Span, Telemetry, together
from fixtures.gpuwatch import GpuWatch

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.gpus.held import Returned


@dataclass
class Node:
    """A HostGpus over made-up ones."""

    name: str
    world: World

    @property
    def found(self) -> Found:
        gpus = tuple(gpu for gpu in self.world.probe.gpus() if isinstance(gpu, Gpu))
        before = examine(self.world.probe, gpus, "590.1")
        return Found(gpus, before, dict.fromkeys([gpu.uuid for gpu in gpus], 0), began=1000.0)

    def telemetry(self, *, partly: bool = False) -> Telemetry:
        return self.world.read()

    def returned(self, timeout: float, slack: int) -> Returned:
        return returned(self.world.probe, self.found.taken, timeout=timeout, slack=slack)


@pytest.fixture
def nodes(tmp_path: Path) -> tuple[Node, Node]:
    """Two GPUs each. They differ in kind, so that their UUIDs do."""
    first = World(h200s(2), tmp_path / "0.jsonl")
    second = World(b200s(2), tmp_path / "1.jsonl", now=1000.5)
    return Node("node 0 (a)", first), Node("node 1 (b)", second)


@pytest.fixture
def watch(nodes: tuple[Node, Node]) -> GpuWatch:
    return GpuWatch(nodes)


def test_each_gpu_has_its_node_s_name(watch: GpuWatch) -> None:
    assert [*watch.names.values()] == [
        *(f"node 0 (a), GPU {n} (NVIDIA H200, {watch.gpus[n].uuid})" for n in (0, 1)),
        *(f"node 1 (b), GPU {n} (NVIDIA B200, {watch.gpus[n + 2].uuid})" for n in (0, 1)),
    ]


def test_what_is_found_before_the_launch_is_told_with_the_node(
    watch: GpuWatch, nodes: tuple[Node, Node]
) -> None:
    nodes[1].world.gpus[1].rows = (0, 0, 1, 0)
    broken = [str(one) for one in watch.before["remap"] if not one.holds]
    (told,) = broken
    assert told.startswith("node 1 (b), GPU 1 (NVIDIA B200, ")
    assert [one.gpu for one in watch.before["driver"]] == ["node 0 (a)", "node 1 (b)"]
    assert [one.gpu for one in watch.before["p2p"]] == [
        "node 0 (a), GPU 0 and GPU 1",
        "node 1 (b), GPU 0 and GPU 1",
    ]


def test_memory_of_every_gpu_is_judged_by_its_own_readings(
    watch: GpuWatch, nodes: tuple[Node, Node]
) -> None:
    for node in nodes:
        node.world.tick()
    nodes[1].world.gpus[0].taken = 100 * GIB
    for node in nodes:
        node.world.tick()
    found = watch.telemetry()
    assert found.samples == 4
    assert [moment for moment, _ in found.memory] == [1001.0, 1001.5, 1002.0, 1002.5]
    assert {len(free) for _, free in found.memory} == {4}
    uuids = [gpu.uuid for gpu in watch.gpus]
    rooms = headrooms(found, Span(), 0.9)
    assert [*rooms] == uuids
    least = [room.least / GIB for room in rooms.values() if isinstance(room, Headroom)]
    assert least[2] == pytest.approx(79)
    assert least[3] == pytest.approx(179)
    assert growth(found, 1001.6, 1002.6) == dict(zip(uuids, [0, 0, 100 * GIB, 0], strict=True))


def test_an_event_without_a_gpu_s_name_is_its_own_node_s(
    watch: GpuWatch, nodes: tuple[Node, Node]
) -> None:
    lost = nodes[1].world.gpus[0]
    nodes[1].world.module.happen(lost, 79)
    lost.lost = True  # it no longer says who it is
    for node in nodes:
        node.world.tick()
    lost.lost = False
    said = "Xid 79 (hardware) on a GPU that NVML does not name"
    assert watch.hardware() == f"{said}, of node 1 (b)"
    holds = {one.gpu: one.holds for one in watch.happened(Span())["xid"]}
    assert [*holds.values()] == [True, True, False, False]


def test_others_on_a_gpu_are_told_with_its_node(
    watch: GpuWatch, nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.ready = 1000.6
    for node in nodes:
        node.world.tick(0.1)
    nodes[1].world.gpus[0].processes = [(1, GIB)]
    nodes[1].world.gpus[0].taken = GIB
    for _ in range(2):
        for node in nodes:
            node.world.tick()
    (broken,) = watch.shared(Span(1001.0, 1003.0))
    assert broken.evidence.startswith("host: node 1 (b), GPU 0 (NVIDIA B200, ")


def test_memory_is_waited_for_on_every_node(watch: GpuWatch, nodes: tuple[Node, Node]) -> None:
    nodes[1].world.gpus[1].taken = 60 * GIB
    answers = watch.returned(0.0).values()
    kept = [answer[1] for answer in answers if isinstance(answer, tuple)]
    assert kept == [0, 0, 0, 60 * GIB]


def test_one_host_is_as_it_was(nodes: tuple[Node, Node]) -> None:
    found = nodes[0].telemetry()
    assert together([found]) is found
    assert GpuWatch((Node("", nodes[0].world),)).names == {
        gpu.uuid: str(gpu) for gpu in nodes[0].found.gpus
    }


def test_sampling_that_broke_off_on_one_node_is_not_whole(nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        node.world.tick()
    nodes[0].world.sampling.end()
    both = [node.telemetry() for node in nodes]
    assert both[0].ended is not None
    assert together(both).ended is None
    nodes[1].world.sampling.end()
    assert together([node.telemetry() for node in nodes]).ended is not None
