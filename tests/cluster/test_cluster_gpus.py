"""The GPUs of one node of a cluster, without Ray: held by its agent, known to the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from cluster_world import ROOT, Handle, NoRay

from acceptance.cluster import gpuagent, nodegpus
from acceptance.cluster.gpuagent import GpuAgent
from acceptance.cluster.nodegpus import NodeGpus
from acceptance.cluster.remote import RemoteCare
from acceptance.deployments.load import load_deployments
from acceptance.deployments.nodes import gpu_telemetry
from acceptance.errors import AcceptanceError, InputError, ObservationError, ServerError
from acceptance.gpus import held as held_here
from acceptance.gpus.held import Wanted
from acceptance.gpus.lock import LeaseRefused
from acceptance.gpus.probe import Unobservable
from acceptance.gpus.tail import read_telemetry
from acceptance.gpus.telemetry import Span
from acceptance.serving.launcher import Part
from acceptance.serving.processes import kill, marked
from fixtures.gpuwatch import GpuWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster_gpus import GpuNode


TWO = load_deployments()["fp8-2x8xh200-dp16-ep"]
WANTED = Wanted("H200", 8, "/runs/1")
NAME = "node 1 (h200-07)"
SLEEPS = "import time; time.sleep(3600)"
AGENT = """
import sys
from pathlib import Path
from acceptance.cluster.gpuagent import GpuAgent
from acceptance.gpus.held import Wanted
from acceptance.serving.launcher import Part
agent = GpuAgent("127.0.0.1")
agent.lease(Wanted("H200", 8, "run"), 0.0)
if sys.argv[1]:
    argv = (sys.executable, "-c", "import time; time.sleep(3600)")
    agent.start(Part(argv, {}, Path("unused"), sys.argv[1]))
print(agent._held.monitor.pid, agent._held.monitor.path, flush=True)
agent.mind(float(sys.argv[2]))
"""


def until(true: Callable[[], object], seconds: float = 20.0) -> bool:
    limit = time.monotonic() + seconds
    while not true() and time.monotonic() < limit:
        time.sleep(0.05)
    return bool(true())


@pytest.fixture
def held(node: GpuNode, tmp_path: Path) -> Iterator[Callable[..., tuple[NodeGpus, NoRay]]]:
    """held(wanted, ahead): GPUs of a node whose agent is in this process."""
    made: list[tuple[NodeGpus, GpuAgent]] = []

    def holding(asked: Wanted = WANTED, ahead: float = 0.0) -> tuple[NodeGpus, NoRay]:
        ray, agent = NoRay(), GpuAgent("127.0.0.1")
        path = gpu_telemetry(tmp_path, TWO.name, 1)
        one = NodeGpus(ray, Handle(agent), NAME, asked, ahead, path)
        made.append((one, agent))
        return one, ray

    yield holding
    for one, agent in made:
        one.end()
        agent.give_back()


def watch(*hosts: NodeGpus) -> GpuWatch:
    return GpuWatch(hosts, ready=time.time())


def test_a_node_s_gpus_are_leased_examined_and_sampled(
    held: Callable[..., Any], node: GpuNode
) -> None:
    one, _ = held()
    assert node.leased() == node.uuids == [gpu.uuid for gpu in one.found.gpus]
    assert one.found.before["remap"][0].holds
    assert one.found.taken == dict.fromkeys(node.uuids, 100 << 20)
    assert until(lambda: len(one.telemetry().memory) > 1)
    found = one.telemetry()
    assert found.gpus == tuple(node.uuids)
    assert abs(found.memory[-1][0] - time.time()) < 60
    assert one.returned(0.0, 0)[node.uuids[7]] == (pytest.approx(0, abs=60), 0)
    one.end()
    assert read_telemetry(one.path).ended is not None, "the last line has come too"
    assert node.leased() == []


def test_telemetry_tells_the_driver_s_time(held: Callable[..., Any]) -> None:
    """Of a node whose clock is an hour ahead."""
    one, _ = held(ahead=3600.0)
    assert until(lambda: one.telemetry().memory)
    for moment in (one.found.began, one.telemetry().memory[0][0]):
        assert abs(moment + 3600 - time.time()) < 60


def test_telemetry_comes_whole_in_pieces(
    held: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (gpuagent, nodegpus):
        monkeypatch.setattr(module, "CHUNK", 100)
    one, _ = held()
    assert until(lambda: one.telemetry().memory)
    assert one.telemetry().gpus


def test_what_happens_to_a_gpu_is_told_with_its_node(
    held: Callable[..., Any], node: GpuNode
) -> None:
    one, _ = held()
    name = f"{NAME}, GPU 0 (NVIDIA H200, {node.uuids[0]})"
    seen = watch(one)
    assert seen.names[node.uuids[0]] == name
    assert seen.hardware() == ""
    node.set(xid=79, reasons=0x48, taken_mib=1 << 10)
    assert until(lambda: seen.hardware() and one.telemetry().missed)
    assert seen.hardware() == f"Xid 79 (hardware) on {name}"
    (xid, *rest) = seen.happened(Span(seen.began))["xid"]
    assert str(xid).startswith(f"{name}: Xid 79 (hardware) on {node.uuids[0]}")
    assert [finding.holds for finding in rest] == [True] * 7
    assert seen.returned(0.0)[node.uuids[0]] == (pytest.approx(0, abs=60), 924 << 20)


def test_gpus_that_another_run_leases_are_refused_with_their_node(
    held: Callable[..., Any], node: GpuNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_here, "FOR_OTHERS", 0.0)
    with node.taken(node.uuids[3]):
        with pytest.raises(LeaseRefused, match="7 of 8 GPUs can be leased") as refused:
            held()
        told = refused.value.happened
        assert told.startswith(f"{NAME}: ")
        assert f"GPU 3 (NVIDIA H200, {node.uuids[3]}): leased by" in told
        assert node.leased() == [node.uuids[3]], "all or none"


@pytest.mark.parametrize(
    ("asked", "state", "visible", "why"),
    [
        (Wanted("B200", 8, ""), {}, None, "needs 8 B200, this host has 0 of 8 (it has 8 H200)"),
        (WANTED, {"count": 4}, None, "needs 8 H200, this host has 4 of 8"),
        (WANTED, {}, "0,1", "needs 8 H200, this host has 2 of 8 (CUDA_VISIBLE_DEVICES=0,1 leaves"),
        (WANTED, {"taken_mib": 40 << 10}, None, "0 of 8 GPUs can be leased"),
    ],
    ids=["kind", "count", "what Ray gives", "in use"],
)
def test_a_node_without_the_right_gpus_is_refused(
    held: Callable[..., Any],
    node: GpuNode,
    monkeypatch: pytest.MonkeyPatch,
    asked: Wanted,
    state: dict[str, int],
    visible: str | None,
    why: str,
) -> None:
    node.set(**state)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(AcceptanceError) as refused:
        held(asked)
    assert refused.value.happened.startswith(f"{NAME}: {why}")
    assert node.leased() == []


def test_a_node_without_nvml_is_refused(
    held: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NVML_INIT", "9")
    told = r"node 1 \(h200-07\): GPUs cannot be leased: NVML: driver not loaded"
    with pytest.raises(InputError, match=told):
        held()


def test_a_lost_node_is_no_whole_record_and_what_came_before_is_kept(
    held: Callable[..., Any], node: GpuNode
) -> None:
    one, ray = held()
    node.set(xid=79)
    assert until(lambda: one.telemetry().events)
    ray.dead = True
    seen = watch(one)
    with pytest.raises(ObservationError, match=r"h200-07.* is out of reach: OutOfReach:"):
        seen.telemetry()
    with pytest.raises(ObservationError, match="is out of reach"):
        seen.happened(Span())
    assert seen.hardware().startswith(f"Xid 79 (hardware) on {NAME}, GPU 0")
    why = seen.returned(0.0)[node.uuids[0]]
    assert isinstance(why, Unobservable)
    assert NAME in str(why)
    ray.dead = False


def test_an_agent_that_dies_while_it_leases_is_told(tmp_path: Path) -> None:
    ray, path = NoRay(), tmp_path / "telemetry"
    ray.dead = True
    with pytest.raises(ServerError, match=r"node 1 \(h200-07\) did not lease its GPUs") as caught:
        NodeGpus(ray, Handle(GpuAgent("127.0.0.1")), NAME, WANTED, 0.0, path)
    assert caught.value.cause == "more"


def test_a_killed_sampler_is_no_whole_record(held: Callable[..., Any]) -> None:
    one, _ = held()
    agent = one._reach._agent._agent
    os.kill(agent._held.monitor.pid, signal.SIGKILL)
    with pytest.raises(ObservationError, match="the sampler process ended with -9"):
        until(lambda: not one.telemetry(), 20)


def test_a_server_may_start_again_on_the_same_gpus(
    held: Callable[..., Any], node: GpuNode, tmp_path: Path
) -> None:
    one, ray = held()
    handle = one._reach._agent
    for number in range(2):
        log = tmp_path / f"start{number}.log"
        part = Part((sys.executable, "-c", SLEEPS), {}, log, f"{tmp_path}.{number}")
        care = RemoteCare(ray, handle, handle._agent.about(0), part, "", stays=True)
        assert marked(f"{tmp_path}.{number}")
        assert care.end(5).survivors == ()
    assert ray.killed == []
    assert node.leased() == node.uuids


@pytest.mark.parametrize("how", ["killed", "killed with its part", "silence"])
def test_leases_and_sampler_end_with_the_agent_and_with_its_driver(
    node: GpuNode, tmp_path: Path, how: str
) -> None:
    mark = "" if how == "silence" else str(tmp_path)
    command = [sys.executable, "-c", AGENT, mark, "1" if how == "silence" else "3600"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    agent = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        pid, path = agent.stdout.readline().split()
        sampler = psutil.Process(int(pid))
        assert sampler.is_running()
        if how != "silence":
            assert node.leased() == node.uuids
            children = psutil.Process(agent.pid).children() if how != "killed" else []
            kill([psutil.Process(agent.pid), *children])
        assert until(lambda: not sampler.is_running(), 30)
        assert until(lambda: not marked(str(tmp_path)), 30)
        assert until(lambda: node.leased() == [], 30)
        assert agent.wait(20) == -signal.SIGKILL
        assert until(lambda: not Path(path).parent.exists(), 30)
    finally:
        agent.kill()
        kill(marked(str(tmp_path)))
