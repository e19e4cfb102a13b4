"""GPUs of a deployment over the nodes of a cluster, without Ray: all nodes lease or none, and each
part is given its node's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cluster_world import Handle, NoRay
from packaging.version import Version

from acceptance.cluster import launcher as launching
from acceptance.cluster.gpuagent import GpuAgent
from acceptance.cluster.launcher import RayLauncher, _all_leased
from acceptance.cluster.nodegpus import NodeGpus
from acceptance.cluster.seats import Seat, Seats
from acceptance.deployments.command import render_nodes
from acceptance.deployments.load import load_deployments
from acceptance.deployments.nodes import gpu_telemetry
from acceptance.deployments.schema import Profile
from acceptance.errors import InputError
from acceptance.gpus import held as held_here
from acceptance.gpus.held import Wanted
from acceptance.gpus.lock import LeaseRefused
from acceptance.gpus.tail import read_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster_gpus import GpuNode

    from acceptance.deployments.schema import Deployment

TWO = load_deployments()["fp4-2x4xb200-dp8-ep"]


def test_nodes_that_refuse_are_all_told() -> None:
    errors = [InputError(f"node {n} (h): needs 8 H200, this host has {n} of 8") for n in (0, 1)]
    with pytest.raises(InputError, match=r"has 0 of 8\nnode 1 .* has 1 of 8") as refused:
        _all_leased(TWO, errors)
    assert refused.value.asked == f"GPUs of 2 nodes for {TWO.name}"


def test_two_nodes_of_one_host_are_refused() -> None:
    gpu: Any = SimpleNamespace(uuid="GPU-a")
    found: Any = SimpleNamespace(gpus=(gpu,))
    nodes: list[Any] = [object.__new__(NodeGpus) for _ in range(2)]
    for number, node in enumerate(nodes):
        node.name, node.found = f"node {number} (h)", found
    with pytest.raises(InputError, match=r"node 0 \(h\) and node 1 \(h\) are one host: both have"):
        _all_leased(TWO, nodes)


@pytest.mark.parametrize(
    ("kinds", "asked"),
    [
        ([["H200"], ["B200"]], {"GPU": 4.0, "accelerator_type:B200": 0.001}),
        ([["H200"], []], {"GPU": 4.0}),
    ],
)
def test_nodes_of_the_kind_are_reserved_where_ray_knows_one(
    kinds: list[list[str]], asked: dict[str, float]
) -> None:
    """Where it does not, the node itself says what it has when it is to lease."""
    nodes = [
        {"Alive": True, "Resources": {f"accelerator_type:{kind}": 1.0 for kind in told}}
        for told in kinds
    ]
    seats = object.__new__(Seats)
    seats._ray = SimpleNamespace(nodes=lambda: nodes)
    assert seats._bundle(TWO) == {"CPU": 1.0, **asked}
    assert seats._bundle(load_deployments()["rehearsal-2node-dp-ep"]) == {"CPU": 1.0}


class FakeSeats:
    """Two nodes whose agents are in this process."""

    def __init__(self, ray: Any, deployment: Deployment) -> None:
        agents = [GpuAgent("127.0.0.1") for _ in range(deployment.layout.nodes)]
        self.taken = tuple(Seat(Handle(one), one.about(2), 0.0, 0.0) for one in agents)
        self.renewed = 0

    def renew(self) -> None:
        self.renewed += 1

    def release(self) -> None:
        self.taken = ()


class TestLauncher:
    """A deployment of four B200 on each of two nodes, which share eight."""

    WANTED = Wanted("B200", 4, "/runs/1")

    @pytest.fixture
    def launcher(self, node: GpuNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayLauncher]:
        node.set(b200=1)
        monkeypatch.setattr(launching, "Seats", FakeSeats)
        made = RayLauncher(NoRay())
        yield made
        made.release()

    def test_every_server_gets_the_gpus_that_are_leased_on_its_nodes(
        self, launcher: RayLauncher, node: GpuNode, tmp_path: Path
    ) -> None:
        hosts = launcher.lease(TWO, self.WANTED, tmp_path)
        assert [host.name.partition(" (")[0] for host in hosts] == ["node 0", "node 1"]
        given = [tuple(gpu.uuid for gpu in host.found.gpus) for host in hosts]
        assert sorted(given[0] + given[1]) == node.uuids == node.leased()
        for _ in range(2):
            site = launcher.site(TWO)
            head = render_nodes(TWO, Profile.BENCHMARK, Version("0.32.0"), site=site)
            visible = [one.env["CUDA_VISIBLE_DEVICES"] for one in (head, *head.others)]
            assert visible == [",".join(uuids) for uuids in given]
            launcher.retire()  # that server has ended, and the next may come
        seats: Any = launcher._seats
        assert seats.renewed == 2
        launcher.release()
        assert node.leased() == []
        for number in range(2):
            found = read_telemetry(gpu_telemetry(tmp_path, TWO.name, number))
            assert found.gpus == given[number]
            assert found.ended is not None

    def test_all_nodes_lease_or_none(
        self,
        launcher: RayLauncher,
        node: GpuNode,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(held_here, "FOR_OTHERS", 0.0)
        with node.taken(node.uuids[0]):
            with pytest.raises(LeaseRefused, match=r"node [01] \(.*\): 3 of 4 GPUs can be leased"):
                launcher.lease(TWO, self.WANTED, tmp_path)
            assert node.leased() == [node.uuids[0]]
