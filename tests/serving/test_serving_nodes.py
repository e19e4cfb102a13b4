"""A server over several nodes of this machine: each in its own warden's care, one of them lost, all
of them ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from serving_world import (
    Death,
    Killing,
    fake_deployment,
    kill_owners,
    start,
    started_for,
    told_apart,
    until,
)

from acceptance.deployments.load import load_deployments
from acceptance.errors import InputError, ServerError
from acceptance.serving.here import Here, NodesHere, interface_of, launcher_for
from acceptance.serving.launcher import Ended
from acceptance.serving.shutdown import end_in_flight
from acceptance.serving.together import Together
from acceptance.serving.watch import ServerWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.server import Server

NAME = "rehearsal-2node-dp-ep"
TWO = fake_deployment(NAME)
ROOT = Path(__file__).parents[2]


def together(server: Server) -> Together:
    assert isinstance(server.custody, Together)
    return server.custody


@pytest.fixture
def two(serving: Callable[..., Server]) -> Callable[..., Server]:
    """two(*faults): a ready server over two nodes."""
    return lambda *faults, **wanted: serving(*faults, **{"deployment": TWO, **wanted})


def test_each_node_has_its_own_warden_log_and_folder(
    two: Callable[..., Server], tmp_path: Path
) -> None:
    server = two()
    head, other = together(server).nodes
    assert server.logs == (
        tmp_path / "servers" / f"{NAME}.benchmark.log",
        tmp_path / "nodes" / "1" / "servers" / f"{NAME}.benchmark.log",
    )
    assert (head.log, other.log) == server.logs
    parents = {psutil.Process(node.pid).ppid() for node in (head, other)}
    assert len(parents) == 2
    assert "Starting vLLM server" in server.logs[0].read_text()
    assert "headless" in server.logs[1].read_text()
    assert "headless" not in server.logs[0].read_text()
    # API server, engine and worker; a headless node, engine and worker.
    assert (len(head.processes()), len(other.processes())) == (3, 3)
    assert sorted(server.pids()) == sorted(p.pid for n in (head, other) for p in n.processes())
    assert psutil.Process(other.pid).cwd() == str(server.logs[1].parent)


def test_the_rendezvous_is_chosen_and_recorded(two: Callable[..., Server]) -> None:
    server = two()
    assert server.command is not None
    (other,) = server.command.others
    meeting = other.argv[other.argv.index("--data-parallel-rpc-port") + 1]
    assert meeting in server.command.argv
    assert meeting != server.base_url.rpartition(":")[2]
    for command in (server.command, other):
        assert command.env["VLLM_HOST_IP"] == "127.0.0.1"
        assert command.env["GLOO_SOCKET_IFNAME"] == interface_of("127.0.0.1")
    shown = server.command.shell()
    assert f"--data-parallel-address 127.0.0.1 --data-parallel-rpc-port {meeting}" in shown
    assert "# node 1\n" in shown


def test_what_every_node_logs_is_known(two: Callable[..., Server]) -> None:
    """The KV cache of an engine is told by the node that has it."""
    facts = two().startup.facts
    assert facts.kv_cache_tokens == {"EngineCore_DP0": 2048, "EngineCore_DP1": 2048}


def test_a_key_in_a_log_is_masked_on_every_node(two: Callable[..., Server]) -> None:
    server = two("leaves-orphan")
    together(server).end(5)
    for log in server.logs:
        assert server.api_key not in log.read_text()


def test_ending_leaves_nobody_on_any_node(two: Callable[..., Server]) -> None:
    care = together(two())
    tree = care.processes()
    ended = care.end(20)
    assert (ended.code, ended.survivors) == (0, ())
    assert len(tree) == 6
    assert told_apart(tree) == []
    assert care.end(20) is ended


def test_ending_kills_who_stays_on_any_node(two: Callable[..., Server]) -> None:
    care = together(two("ignores-sigterm"))
    tree = care.processes()
    ended = care.end(0.5)
    assert set(ended.survivors) == {process.pid for process in tree}
    assert told_apart(tree) == []


def test_requests_in_flight_at_the_end_are_answered(two: Callable[..., Server]) -> None:
    ended = end_in_flight(two(deployment=fake_deployment(NAME, shutdown_timeout=4)))
    assert all(client.whole for client in ended.clients), ended
    assert (ended.code, ended.survivors) == (0, ())


@pytest.mark.parametrize("number", [0, 1])
def test_a_lost_node_is_a_failure_that_names_it(two: Callable[..., Server], number: int) -> None:
    """And its log: the head of a node that is gone says nothing of it."""
    server = two()
    heard: list[ServerError] = []
    server.watch = ServerWatch(server, heard.append)
    pid = together(server).nodes[number].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: heard)
    lost = "ended with exit code -9 while serving"
    named = lost if number == 0 else f"lost node 1, which {lost}"
    assert heard[0].happened == f"{NAME} {named}"
    assert heard[0].log == server.logs[number]
    assert server.broken is heard[0]


def test_a_node_that_lost_its_warden_is_named(two: Callable[..., Server]) -> None:
    care = together(two("ignores-sigterm"))
    warden = psutil.Process(care.nodes[1].pid).parent()
    assert warden is not None
    warden.kill()
    assert until(lambda: care.lost)
    assert care.fate == "lost node 1, which lost its warden, which somebody ended"
    assert care.exit_code is None


def test_a_node_that_does_not_start_is_named_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(ServerError) as caught:
        start(tmp_path, "headless-dies-in-load", deployment=fake_deployment(NAME, stop=2.0))
    assert "lost node 1, which ended with exit code 1 while " in caught.value.happened
    assert "OSError: no such weights" in caught.value.cause
    assert caught.value.log == tmp_path / "nodes" / "1" / "servers" / f"{NAME}.benchmark.log"
    assert [*started_for(tmp_path)] == []


def test_a_node_that_never_meets_the_head_is_silence(tmp_path: Path) -> None:
    silent = fake_deployment(NAME, silence=1.0, stop=2.0)
    with pytest.raises(ServerError, match="was silent for"):
        start(tmp_path, "never-meets", deployment=silent)
    assert [*started_for(tmp_path)] == []


def test_a_node_that_cannot_be_started_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_one(self: object, parts: list[object]) -> Together:
        taken = iter([True, False])

        def take(part: object) -> object:
            if next(taken):
                return here_take(part)  # type: ignore[arg-type]
            raise ServerError("its warden could not be started")

        return Together.start(parts, take)  # type: ignore[arg-type]

    from acceptance.serving.here import take as here_take

    monkeypatch.setattr(NodesHere, "start", start_one)
    with pytest.raises(ServerError, match="node 1: its warden could not be started"):
        start(tmp_path, "silent-start", deployment=TWO)
    assert [*started_for(tmp_path)] == []


KILLINGS = {
    how.name: Killing(how, "serving", ("ignores-sigterm",), NAME)
    for how in (signal.SIGKILL, signal.SIGTERM)
}


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Death]:
    return kill_owners(KILLINGS, tmp_path_factory.mktemp("deaths"))


@pytest.mark.parametrize("how", KILLINGS)
def test_nothing_outlives_the_owner_on_any_node(deaths: dict[str, Death], how: str) -> None:
    assert len(deaths[how].tree) == 8  # with two wardens
    assert deaths[how].late == ()


def test_this_host_is_no_second_host_for_gpus() -> None:
    deployments = load_deployments()
    assert isinstance(launcher_for(deployments["rehearsal-dp-ep"]), Here)
    assert isinstance(launcher_for(TWO), NodesHere)
    with pytest.raises(InputError, match="fp8-2x8xh200-dp16-ep needs 2 hosts, and there is one"):
        NodesHere().site(deployments["fp8-2x8xh200-dp16-ep"])


def test_ports_and_interface_of_a_site() -> None:
    site = NodesHere().site(TWO)
    assert [node.address for node in site.nodes] == ["127.0.0.1"] * 2
    assert site.port != site.meeting
    assert interface_of("192.0.2.1") == ""


def test_nothing_that_was_started_is_nothing_to_end() -> None:
    assert Together([]).end(1) == Ended(None, 0.0, ())
