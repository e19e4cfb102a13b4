"""GPUs of a cluster's nodes in a report: what only the records of servers there tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from acceptance.deployments.load import load_deployments
from acceptance.deployments.nodes import gpu_telemetries, gpu_telemetry
from reports.facts import facts, identity
from reports.identity import run_record
from reports.memory import timelines
from reports.observing import identity_of
from reports.reading import Results
from reports.schema import GpuIdentity, ServerRecord

if TYPE_CHECKING:
    from pathlib import Path

TWO = load_deployments()["fp8-2x8xh200-dp16-ep"]
HOST = GpuIdentity(name="NVIDIA L4", uuid="GPU-l4", index=0)
GIB = 1 << 30


def node_gpu(node: int, index: int, driver: str = "580.1") -> GpuIdentity:
    name, uuid = f"node {node} (h200-0{node})", f"GPU-{node}-{index}"
    return GpuIdentity(name="NVIDIA H200", uuid=uuid, index=index, node=name, driver=driver)


def ran(*on: GpuIdentity, here: tuple[GpuIdentity, ...] = ()) -> Results:
    run = run_record(argv=["pytest"], deployments=[TWO], gpus=here, driver="550" if here else None)
    server = ServerRecord(time=run.time, deployment=TWO.name, outcome="ready", gpus=on)
    return Results((run, server))


def test_a_run_over_nodes_was_on_their_gpus() -> None:
    results = ran(*(node_gpu(node, index) for node in range(2) for index in range(8)))
    told = dict(facts(results))
    assert (told["GPUs"], told["Driver"]) == ("16 × NVIDIA H200", "580.1")
    assert "node 1 (h200-01) NVIDIA H200 GPU-1-7" in dict(identity(results))["GPUs"]
    shared = identity_of(results.run_on)
    assert (shared["gpus"], shared["driver"]) == ("16x NVIDIA H200", "580.1")
    assert results.run is not None
    assert results.run.gpus == (), "what a resumed run is held against stays as it was written"


def test_nodes_of_different_drivers_are_told() -> None:
    results = ran(node_gpu(0, 0), node_gpu(1, 0, "590.2"))
    assert dict(facts(results))["Driver"] == "580.1, 590.2"


def test_a_run_on_its_own_host_is_as_it_was() -> None:
    results = ran(here=(HOST,))
    assert results.run_on is results.run
    assert dict(facts(results))["GPUs"] == "NVIDIA L4"
    assert Results().run_on is None


def test_memory_of_every_node_is_drawn(tmp_path: Path) -> None:
    for node in range(2):
        path = gpu_telemetry(tmp_path, TWO.name, node)
        path.parent.mkdir(parents=True)
        gpus = {f"GPU-{node}-{index}": {"total": 141 * GIB} for index in range(2)}
        lines = [
            {"t": 1.0, "kind": "begin", "gpus": gpus},
            *({"t": t, "kind": "memory", "free": [GIB * (node + 1), None]} for t in (2.0, 3.0)),
        ]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert len(gpu_telemetries(tmp_path, TWO.name)) == 2
    results = ran(*(node_gpu(node, index) for node in range(2) for index in range(2)))
    (found,) = timelines(results.records, tmp_path)
    assert found.gpus
    assert [(one.name, one.used) for one in found.devices] == [
        ("node 0, GPU 0", [140.0, 140.0]),
        ("node 1, GPU 0", [139.0, 139.0]),
    ]
