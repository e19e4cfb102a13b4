"""A deployment with GPUs over two nodes of a real Ray cluster: leased, examined, sampled on both.
The GPUs are made up, and so is vLLM. Skipped without Ray (docs/cluster.md)."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

pytest.importorskip("ray")

from cluster_world import CLIENT, ROOT
from fixtures_runs import FAKE_VLLM, Ran, Site, environment, finish, run_repository, start
from serving_world import lives, until

from acceptance.deployments.nodes import gpu_telemetry, node_folder
from acceptance.gpus.tail import read_telemetry
from acceptance.judging.judgement import Outcome
from reports.schema import JudgementRecord, ServerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster_gpus import GpuNode

NAME = "fp8-2x8xh200-dp16-ep"
HEALTH = "suites/memory/test_health.py"
SAMPLER, WARDEN = "acceptance.gpus.sampling", "acceptance.serving.warden"
OURS = (SAMPLER, WARDEN, str(FAKE_VLLM))
ADDRESSES = ("auto", f"ray://127.0.0.1:{CLIENT}")
LEFT = 30.0  # seconds after the driver's death within which nothing may be left

AGAIN = """
    from contextlib import ExitStack
    from acceptance.serving.shutdown import end_idle
    from fixtures.servers import start_server

    def test_again(server: Any, deployment: Any, run: Any, pytestconfig: Any) -> None:
        end_idle(server)
        with ExitStack() as stack:
            again = start_server(deployment, run, pytestconfig, stack, suffix=".restart")
            stack.callback(again.custody.end, 20)
            for before, now in zip(commands(server), commands(again), strict=True):
                assert before.env["CUDA_VISIBLE_DEVICES"] == now.env["CUDA_VISIBLE_DEVICES"]

    def commands(server: Any) -> list[Any]:
        return [server.command, *server.command.others]
"""
DIES = """
    import time

    def test_dies(server: Any) -> None:
        server.custody.nodes[1].signal(9)
        while server.broken is None:
            time.sleep(0.1)
        server.check()
"""
LOSES = """
    import time
    import ray

    def test_loses(server: Any) -> None:
        ray.kill(server.custody.nodes[1]._agent)
        time.sleep(3600)
"""
WAITS = """
    import time

    def test_waits(server: Any, run: Any) -> None:
        (run.run_dir / "serving").touch()
        time.sleep(3600)
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Of a run that starts the fake in place of vLLM for GPUs."""
    found = tmp_path / "installed" / "vllm-0.32.0.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    vllm = f"{sys.executable} {FAKE_VLLM}"
    return [HEALTH, "--deployment", NAME, "--cluster", "auto", "--vllm", vllm]


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Path, gpu_nodes: list[GpuNode]) -> Iterator[None]:
    yield
    assert until(lambda: not of_cluster(cluster, *OURS), LEFT)
    assert [node.leased() for node in gpu_nodes] == [[], []]


def settings(tmp_path: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "installed"), str(ROOT)])}


def run(tmp_path: Path, *words: str, **env: str) -> Ran:
    return run_repository(tmp_path / "run", *words, **settings(tmp_path), **env)


def of_cluster(cluster: Path, *words: str) -> list[psutil.Process]:
    """Living processes that a node of the cluster has started with one of these words."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.environ().get("FAKE_NVML_STATE", "").startswith(str(cluster))
            if mine and {*words} & {*process.cmdline()} and lives(process):
                found.append(process)
    return found


def visible(ran: Ran) -> list[list[str]]:
    """What each node's part was given, head first."""
    command = ran.servers("ready")[0].command
    return [one.split(",") for one in re.findall(r"CUDA_VISIBLE_DEVICES=(\S+)", command)]


def outcomes(ran: Ran, check: str) -> dict[str, JudgementRecord]:
    """By the parameter of a check."""
    return {r.check.nodeid.rpartition("-")[2].rstrip("]"): r for r in ran.judgements(check)}


def test_it_is_served_on_gpus_that_are_leased_and_sampled_on_both(
    ray: Any, gpu_nodes: list[GpuNode], tmp_path: Path, words: list[str]
) -> None:
    ran = run(tmp_path, *words)
    assert ran.servers("ready"), ran.out
    given = visible(ran)
    assert sorted(given) == [node.uuids for node in gpu_nodes]
    for number in range(2):
        telemetry = read_telemetry(gpu_telemetry(ran.run_dir, NAME, number))
        assert telemetry.ended is not None
        assert telemetry.samples == telemetry.ended["ticks"] > 1
        assert list(telemetry.gpus) == given[number]
    fit = outcomes(ran, "are_fit")
    assert fit["idle"].judgement.outcome is Outcome.PASS, ran.out
    kept = ran.judgements("memory_comes_back")
    assert {str(r.judgement.measurement.evidence["gpu"]) for r in kept} == {
        f"{telling(ran, number)}, GPU {index} (NVIDIA H200, {uuid})"
        for number in range(2)
        for index, uuid in enumerate(given[number])
    }
    assert {r.judgement.outcome for r in kept} == {Outcome.PASS}
    assert "FAIL" not in ran.out


def test_a_run_goes_on_upon_the_same_gpus_alone(
    ray: Any, gpu_nodes: list[GpuNode], tmp_path: Path, words: list[str]
) -> None:
    ran = run(tmp_path, *words)
    assert ran.servers("ready"), ran.out
    results = ran.run_dir / "results.jsonl"
    lines = results.read_text().splitlines()
    kept = [line for line in lines if '"type":"server"' in line or '"type":"run"' in line]
    other = gpu_nodes[0].uuids[0].replace("GPU-", "GPU-f00d-")
    for uuid, refused in ((gpu_nodes[0].uuids[0], False), (other, True)):
        results.write_text("\n".join(kept).replace(gpu_nodes[0].uuids[0], uuid) + "\n")
        resumed = start(
            ROOT, f"--resume={ran.run_dir}", *words, env=environment(**settings(tmp_path))
        )
        again = finish(resumed, ran.run_dir)
        assert ("the cluster gave other GPUs than the run had" in again.out) is refused, again.out
        assert not again.servers("failed")


def telling(ran: Ran, number: int) -> str:
    """A node's name, by the first line of its log."""
    log = node_folder(ran.run_dir, number) / "servers" / f"{NAME}.benchmark.log"
    told = re.match(r"acceptance: (node \d) is (\S+) at ", log.read_text())
    assert told is not None
    return f"{told[1]} ({told[2]})"


def test_an_xid_is_named_with_its_node(
    ray: Any, gpu_nodes: list[GpuNode], tmp_path: Path, words: list[str]
) -> None:
    sick = gpu_nodes[1]
    sick.set(xid=79, reasons=0x48)
    ran = run(tmp_path, *words, "-k", "nothing_happened")
    number = [one[0] for one in visible(ran)].index(sick.uuids[0])
    name = f"{telling(ran, number)}, GPU 0 (NVIDIA H200, {sick.uuids[0]})"
    found = outcomes(ran, "nothing_happened_to_the_gpus")
    failed = [name for name, one in found.items() if one.judgement.outcome is Outcome.FAIL]
    assert failed == ["xid", "throttling"], ran.out
    assert f"{name}: Xid 79 (hardware)" in found["xid"].judgement.reason
    assert sick.uuids[7] in found["throttling"].judgement.reason
    assert gpu_nodes[0].uuids[0] not in found["throttling"].judgement.reason
    assert "REJECTED" in ran.out


@pytest.mark.parametrize("address", ADDRESSES)
def test_nodes_whose_gpus_are_taken_are_refused_before_anything_starts(
    address: str, ray: Any, gpu_nodes: list[GpuNode], tmp_path: Path, words: list[str]
) -> None:
    for node in gpu_nodes:
        node.set(taken_mib=40 << 10)
    ran = run(tmp_path, *words, "-k", "fit", "--cluster", address)
    assert ran.code != 0
    assert not ran.servers("ready"), ran.out
    for node in gpu_nodes:
        assert f"GPU 3 (NVIDIA H200, {node.uuids[3]}): 40.0 GiB in use" in ran.out
    assert re.search(r"node 0 \(\S+\): 0 of 8 GPUs can be leased", ran.out)
    assert re.search(r"node 1 \(\S+\): 0 of 8 GPUs can be leased", ran.out)
    assert not list(ran.run_dir.rglob("*.log")), "nothing was started"


class TestOnASite:
    """Small runs of what servers may come to."""

    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        """With vLLM for GPUs."""
        made = Site(tmp_path)
        (cpu,) = (made.folder / "installed").iterdir()
        (cpu / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
        cpu.rename(cpu.with_name("vllm-0.32.0.dist-info"))
        return made

    def test_a_second_server_is_given_the_same_gpus(
        self, ray: Any, gpu_nodes: list[GpuNode], site: Site
    ) -> None:
        site.write(AGAIN)
        ran = site.launch("--cluster", "auto", deployment=NAME)
        assert [one.outcome for one in ran.tests("passed")] == ["passed"], ran.out

    def test_a_part_that_ends_beside_a_sick_gpu_is_booked_as_hardware(
        self, ray: Any, gpu_nodes: list[GpuNode], site: Site
    ) -> None:
        gpu_nodes[1].set(xid=79)
        site.write(DIES)
        ran = site.launch("--cluster", "auto", deployment=NAME)
        (cause,) = {
            record.trace.cause
            for record in ran.results.records
            if isinstance(record, ServerRecord) and record.trace.cause
        }
        number = [one[0] for one in visible(ran)].index(gpu_nodes[1].uuids[0])
        name = f"{telling(ran, number)}, GPU 0 (NVIDIA H200, {gpu_nodes[1].uuids[0]})"
        ended = "lost node 1, which ended with exit code -9 while serving"
        assert f"{ended}: hardware: Xid 79 (hardware) on {name}" in cause

    def test_a_lost_agent_takes_its_lease_with_it_and_is_named(
        self, ray: Any, gpu_nodes: list[GpuNode], site: Site
    ) -> None:
        site.write(LOSES)
        ran = site.launch("--cluster", "auto", deployment=NAME)
        assert "lost node 1, which is out of reach: ActorDiedError" in ran.out
        head, other = (read_telemetry(gpu_telemetry(ran.run_dir, NAME, n)) for n in range(2))
        assert head.ended is not None
        assert other.memory, "what came before is kept"
        assert other.ended is None

    @pytest.mark.parametrize("address", ADDRESSES)
    def test_a_killed_driver_leaves_no_lease_sampler_or_process(
        self, address: str, ray: Any, cluster: Path, gpu_nodes: list[GpuNode], site: Site
    ) -> None:
        site.write(WAITS)
        vllm = f"{sys.executable} {FAKE_VLLM}"
        paths = os.pathsep.join([str(site.folder / "installed"), str(ROOT)])
        env = {"PYTHONPATH": paths, "SITE_MODEL": str(site.folder / "model")}
        words = ("--vllm", vllm, "--deployment", NAME, "--cluster", address)
        driver, run_dir = site.start(*words, **env)
        try:
            assert until((run_dir / "serving").exists, 120)
            assert [node.leased() for node in gpu_nodes] == [node.uuids for node in gpu_nodes]
            assert len(of_cluster(cluster, SAMPLER)) == 2
            assert len(of_cluster(cluster, WARDEN)) == 2
        finally:
            driver.kill()
            driver.communicate()
        assert until(lambda: not of_cluster(cluster, *OURS), LEFT), of_cluster(cluster, *OURS)
        assert until(lambda: [node.leased() for node in gpu_nodes] == [[], []], LEFT)
