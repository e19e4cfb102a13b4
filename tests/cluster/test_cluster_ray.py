"""Two nodes of a real Ray cluster on this machine: served, lost, killed, refused. Skipped without
Ray, which needs an environment of its own (docs/cluster.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

pytest.importorskip("ray")

import cluster_world
from cluster_world import CLIENT, NAME, PORT, ROOT, start_on
from fixtures_runs import Site
from serving_world import fake_deployment, lives, started_for, told_apart, until

from acceptance.cluster import seats
from acceptance.cluster.launcher import RayLauncher
from acceptance.cluster.record import State, read_fleet
from acceptance.errors import InputError, ServerError
from acceptance.serving.processes import marked
from acceptance.serving.together import Together
from acceptance.serving.watch import ServerWatch

if TYPE_CHECKING:
    from collections.abc import Iterator


LEFT = 30.0  # seconds after the driver's death within which nothing may be left
GENERATES = """
    from acceptance.serving.generation import generate

    def test_generates(server: Any) -> None:
        generate(server, server.model, timeout=20)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in started_for(tmp_path):
        process.kill()


def test_a_server_over_two_nodes(ray: Any, run_dir: Path) -> None:
    server = start_on(ray, run_dir)
    care = server.custody
    assert isinstance(care, Together)
    assert server.base_url.startswith("http://127.0.0.1:")  # the head is on this machine
    assert server.startup.facts.kv_cache_tokens == {"EngineCore_DP0": 2048, "EngineCore_DP1": 2048}
    assert server.command is not None
    (other,) = server.command.others
    addresses = [one.env["VLLM_HOST_IP"] for one in (server.command, other)]
    assert len(set(addresses)) == 2  # STRICT_SPREAD
    assert other.argv[other.argv.index("--data-parallel-address") + 1] == addresses[0]
    for number, log in enumerate(server.logs):
        first = log.read_text().splitlines()[0]
        assert first.startswith(f"acceptance: node {number} is ")
        assert "its clock is " in first
    tree = care.processes()
    assert len(tree) == 6
    ended = care.end(20)
    assert (ended.code, ended.survivors) == (0, ())
    assert told_apart(tree) == []
    assert "Application shutdown complete" in server.logs[0].read_text()


def test_a_lost_agent_is_a_named_failure(ray: Any, run_dir: Path) -> None:
    server = start_on(ray, run_dir, "ignores-sigterm")
    care: Any = server.custody
    heard: list[ServerError] = []
    server.watch = ServerWatch(server, heard.append)
    ray.kill(care.nodes[1]._agent)
    assert until(lambda: heard, 30)
    assert f"{NAME} lost node 1, which is out of reach: " in heard[0].happened
    assert heard[0].log == server.logs[1]
    care.end(1)
    assert until(lambda: not [*started_for(run_dir)], LEFT)


@pytest.mark.parametrize("address", ["auto", f"ray://127.0.0.1:{CLIENT}"])
def test_killing_the_driver_leaves_nothing(cluster: Path, run_dir: Path, address: str) -> None:
    """Not even what ignores SIGTERM or has left its parents."""
    owner = str(Path(__file__).with_name("cluster_owner.py"))
    command = [sys.executable, owner, str(run_dir), address, "ignores-sigterm,leaves-orphan"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": f"127.0.0.1:{PORT}"}
    if address != "auto":
        del env["RAY_ADDRESS"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip() == "serving"
        tree = [*started_for(run_dir)]
        assert len(tree) >= 6
        driver.kill()
    assert until(lambda: not [*filter(lives, tree), *started_for(run_dir)], LEFT), told_apart(tree)


def test_a_node_that_lacks_the_program_is_told(
    ray: Any, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_world, "VLLM", replace(cluster_world.VLLM, argv=("/no/vllm",)))
    with pytest.raises(ServerError, match="node 0: its agent could not start it") as caught:
        start_on(ray, run_dir)
    assert caught.value.cause == "[Errno 2] No such file or directory: '/no/vllm'"


def test_nodes_that_are_not_there_are_told(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "RESERVED", 3.0)
    layout = fake_deployment(NAME).layout.model_copy(update={"data": 3, "nodes": 3})
    three = fake_deployment(NAME).model_copy(update={"layout": layout})
    with pytest.raises(InputError, match="needs 3 nodes with 1 CPU free on each") as refused:
        RayLauncher(ray).site(three)
    assert "127.0.0.2 has 2 CPU" in refused.value.cause


def test_a_run_on_the_cluster(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    site.write(GENERATES)
    ran = site.launch("--nodes", "2", "--cluster", "auto", deployment="rehearsal-*")
    assert (ran.code, ran.word) == (0, "REHEARSED"), ran.out
    (ready,) = ran.servers("ready")
    assert "# node 1\n" in ready.command
    log = ran.run_dir / "nodes" / "1" / "servers" / f"{NAME}.benchmark.log"
    assert log.read_text().startswith("acceptance: node 1 is ")


def test_a_fleet_whose_driver_is_killed_leaves_nothing_and_goes_on(
    cluster: Path, tmp_path: Path
) -> None:
    """Real runs of the suite on both nodes, the driver killed, and the same fleet resumed."""
    folder = tmp_path / "fleet"
    site = ROOT / "fixtures" / "demo" / "fleet"
    command = [sys.executable, "-m", "reports.fleet", "--cluster", "auto"]
    words = [f"--deployments={site}", "--deployment=fleet-host", "suites/memory/test_memory.py"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": f"127.0.0.1:{PORT}"}

    def running() -> list[psutil.Process]:
        names = read_fleet(folder).hosts if (folder / "fleet.json").exists() else ()
        return [process for name in names for process in marked(f"{folder}/{name}")]

    with subprocess.Popen([*command, f"--run-dir={folder}", *words], cwd=ROOT, env=env) as driver:
        assert until(lambda: len(running()) >= 4, 120)  # of both hosts, with what pytest started
        tree = running()
        driver.kill()
    assert until(lambda: not [*filter(lives, tree), *running()], LEFT), told_apart(tree)
    again = subprocess.run(
        [*command, f"--resume={folder}"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert again.returncode == 1, again.stderr  # two hosts are too few to be held together
    assert "INCOMPLETE (simulated lane): 2 hosts" in again.stdout
    assert "ACCEPTED" not in (folder / "fleet.html").read_text()
    record = read_fleet(folder)
    assert [entry.state for entry in record.hosts.values()] == [State.DONE] * 2
    for name in record.hosts:
        assert (record.run_of(name) / "acceptance.html").is_file()


def test_a_lost_machine_is_a_named_failure(ray: Any, cluster: Path, run_dir: Path) -> None:
    """Last: the second node's own Ray is killed, and does not come back."""
    server = start_on(ray, run_dir)
    heard: list[ServerError] = []
    server.watch = ServerWatch(server, heard.append)
    lost = [
        process
        for process in psutil.process_iter()
        if process.name() == "raylet"
        and "--node_ip_address=127.0.0.2" in process.cmdline()
        and f":{PORT}" in " ".join(process.cmdline())
    ]
    assert len(lost) == 1
    lost[0].kill()
    assert until(lambda: heard, 60)
    assert " lost node " in heard[0].happened
    assert server.custody is not None
    server.custody.end(1)
    assert until(lambda: not [*started_for(run_dir)], LEFT)
