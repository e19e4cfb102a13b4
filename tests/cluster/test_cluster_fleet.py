"""Running a fleet, without Ray: which hosts, what is carried, who drops out, and the record."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cluster_world import Handle, NoRay, OutOfReach

from acceptance.cluster import fleetrun
from acceptance.cluster.carry import Mark, Piece, piece, receive
from acceptance.cluster.fleetrun import FleetRun
from acceptance.cluster.hostrun import HostAgent, become
from acceptance.cluster.hosts import FleetHost, Need, eligible, need_of
from acceptance.cluster.record import FleetRecord, State, read_fleet
from acceptance.deployments.load import load_deployments
from acceptance.errors import InputError, ObservationError

if TYPE_CHECKING:
    from pathlib import Path

# A command as each host runs it: its last word is --run-dir=FOLDER.
RUNS = """
import os, sys, time
from pathlib import Path
print("it runs", flush=True)
run = Path(sys.argv[-1].removeprefix("--run-dir="))
if os.environ.get("ILL") == "empty":
    raise SystemExit("nothing is here")
if os.environ.get("ILL") == "waits":
    time.sleep(3600)
run.mkdir()
(run / "results.jsonl").write_text("x" * 100)
raise SystemExit(1)
"""


class HostsRay(NoRay):
    """A Ray whose agents are in this process; one that is killed answers no more."""

    def __init__(self) -> None:
        super().__init__()
        self.agents: list[HostAgent] = []
        self.asked: list[dict[str, Any]] = []
        self.util = SimpleNamespace(
            scheduling_strategies=SimpleNamespace(
                NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft)
            )
        )

    def remote(self, _: object) -> Any:
        return SimpleNamespace(options=self._options)

    def _options(self, **options: Any) -> Any:
        self.asked.append(options)
        return SimpleNamespace(remote=self._agent)

    def _agent(self) -> Any:
        self.agents.append(HostAgent("127.0.0.1"))
        return KilledOrNot(self.agents[-1], self)


class KilledOrNot(Handle):
    """An agent that is asked nothing any more once its Ray has killed it."""

    def __init__(self, agent: HostAgent, ray: HostsRay) -> None:
        super().__init__(agent)
        self._ray = ray

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._agent, name)

        def answer(*args: Any) -> Any:
            if self in self._ray.killed:
                raise OutOfReach("The actor died unexpectedly.\nmore")
            return method(*args)

        return SimpleNamespace(remote=lambda *args: lambda: answer(*args))


def node(name: str, *, gpus: int = 0, kind: str = "", cpus: int = 8, alive: bool = True) -> Any:
    resources = {"CPU": cpus, "GPU": gpus, **({f"accelerator_type:{kind}": 1} if kind else {})}
    return {
        "NodeID": f"id-{name}",
        "NodeManagerHostname": name,
        "NodeManagerAddress": f"10.0.0.{len(name)}",
        "Alive": alive,
        "Resources": {k: v for k, v in resources.items() if v},
    }


def test_hosts_with_what_is_needed() -> None:
    nodes = [
        node("b", gpus=8, kind="H200"),
        node("a", gpus=8),
        node("small", gpus=4),
        node("other", gpus=8, kind="B200"),
        node("head", cpus=0, gpus=8),
        node("dead", gpus=8, alive=False),
    ]
    found, passed_over = eligible(nodes, Need(8, "H200"))
    assert [(host.name, host.node, host.gpus) for host in found] == [
        ("a", "id-a", 8),
        ("b", "id-b", 8),
    ]
    assert passed_over == [
        "head is passed over: it gives no CPU to Ray's work",
        "other is passed over: it has B200, and H200 is asked for",
        "small is passed over: it has 4 of 8 GPUs",
    ]
    assert len(eligible(nodes, Need())[0]) == 4


def test_hosts_of_one_name_are_told_apart() -> None:
    twice = [node("n") | {"NodeManagerAddress": f"10.0.0.{last}"} for last in (1, 2)]
    assert [host.name for host in eligible(twice, Need())[0]] == ["n-10.0.0.1", "n-10.0.0.2"]


def test_what_a_host_must_have() -> None:
    known = load_deployments()
    assert need_of([known["fp8-8xh200-tp-ep"]]) == Need(8, "H200")
    assert need_of([known["rehearsal-tp-ep"], known["simulated-fp8-8xh200-tp-ep"]]) == Need()
    with pytest.raises(InputError, match="takes several hosts"):
        need_of([known["fp8-2x8xh200-dp16-ep"]])
    with pytest.raises(InputError, match="B200 and H200: no host has both"):
        need_of([known["fp8-8xh200-tp-ep"], known["fp4-4xb200-tp-ep"]])


@pytest.mark.parametrize("most", [1, 7, 64, 1 << 20])
def test_a_folder_is_carried_whole_in_pieces(tmp_path: Path, most: int) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    (source / "deep" / "er").mkdir(parents=True)
    wanted = {"a": b"0123456789", "deep/er/b": bytes(range(50)), "deep/empty": b"", "z": b"end"}
    for name, data in wanted.items():
        (source / name).write_bytes(data)
    (source / "link").symlink_to("/etc/passwd")
    mark: Mark | None = Mark()
    while mark is not None:
        got = piece(source, mark, most)
        assert sum(len(data) for _, data in got.parts) <= most
        receive(got, there)
        mark = got.after
    files = [path for path in there.rglob("*") if path.is_file()]
    assert {path.relative_to(there).as_posix(): path.read_bytes() for path in files} == wanted
    assert piece(tmp_path / "none", Mark()) == Piece((), None)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_nothing_is_carried_to_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ObservationError, match="outside"):
        receive(Piece(((name, b"x"),), None), tmp_path)


def test_the_command_is_told_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert become(["pytest", "-q", "--run-dir="]) == ["pytest", "-q", f"--run-dir={tmp_path}/run"]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleetrun, "GRACE", 0.2)
    monkeypatch.setattr(fleetrun, "LOOK", 0.05)
    monkeypatch.setattr(fleetrun, "DIES_AFTER", 0.0)


@pytest.mark.usefixtures("short")
def test_every_host_runs_or_says_why_not(tmp_path: Path) -> None:
    """One that is well, one that leaves nothing and one whose agent dies, both resumed; the page of
    none of them needs Ray."""
    ray, said = HostsRay(), list[str]()
    record = FleetRecord(tmp_path, (sys.executable, "-c", RUNS))
    hosts = [
        FleetHost("well", node="id-well", gpus=8),
        FleetHost("empty", env={"ILL": "empty"}),
        FleetHost("dead", env={"ILL": "waits"}, dies=True),
    ]
    FleetRun(ray, record, said.append, at_once=3).run(hosts)
    entries = read_fleet(tmp_path).hosts
    assert entries == record.hosts
    assert (entries["well"].state, entries["well"].code, entries["well"].size) == (
        State.DONE,
        1,
        100,
    )
    assert (record.run_of("well") / "results.jsonl").read_text() == "x" * 100
    assert "it runs" in record.log_of("well").read_text()
    assert (entries["empty"].state, entries["dead"].state) == (State.DROPPED, State.DROPPED)
    assert entries["empty"].why == "it left no results: nothing is here"
    assert entries["dead"].why == "is out of reach: OutOfReach: The actor died unexpectedly."
    assert not record.run_of("empty").exists()
    assert "dead: dropped out: is out of reach" in "\n".join(said)
    pinned = [one for one in ray.asked if one["num_gpus"] == 8]
    assert [one["scheduling_strategy"] for one in pinned] == [("id-well", False)]
    for agent in ray.agents:
        agent.end(0.1)
        agent.close()


@pytest.mark.usefixtures("short")
def test_hosts_begin_apart(tmp_path: Path) -> None:
    """Each waits for the one before to have begun so long ago; nobody waits for real."""
    ray, waited = HostsRay(), list[float]()
    record = FleetRecord(tmp_path, (sys.executable, "-c", RUNS))
    run = FleetRun(ray, record, lambda _: None, at_once=3, apart=1000.0)
    look = run._stopped.wait

    def wait(seconds: float | None = None) -> bool:
        assert seconds is not None
        waited.append(seconds)
        return look(min(seconds, fleetrun.LOOK))

    run._stopped.wait = wait  # type: ignore[method-assign]
    run.run([FleetHost(name) for name in "abc"])
    assert [entry.state for entry in record.hosts.values()] == [State.DONE] * 3
    assert len([seconds for seconds in waited if 900 < seconds <= 1000]) == 2
    for agent in ray.agents:
        agent.end(0.1)
        agent.close()


def test_what_is_no_fleet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no fleet"):
        read_fleet(tmp_path)
    (tmp_path / "fleet.json").write_text('{"words": [], "simulated": 0, "hosts": {"a": {}}}')
    with pytest.raises(InputError, match="holds no fleet"):
        read_fleet(tmp_path)


def test_names_of_hosts_stay_in_the_folder(tmp_path: Path) -> None:
    record = FleetRecord(tmp_path, ())
    for name in ("..", "../../x", "a/b", "node1.example"):
        assert record.run_of(name).parent == tmp_path / "hosts"
    assert record.run_of("node1.example").name == "node1.example"
