"""One node of a cluster, without Ray: its agent, the guard beside it, and the driver's side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from cluster_world import ROOT, Handle, NoRay

from acceptance.cluster import remote
from acceptance.cluster.agent import Agent, boot_id
from acceptance.cluster.connect import connect
from acceptance.cluster.remote import RemoteCare
from acceptance.errors import InputError, ServerError
from acceptance.serving.here import free_ports
from acceptance.serving.launcher import Part
from acceptance.serving.processes import MARK, kill, marked
from acceptance.serving.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAYS = "import sys, time; print('the-key is here', flush=True); time.sleep(float(sys.argv[1]))"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)\n"
STUBBORN += "time.sleep(3600)"
AGENT = """
import sys
from pathlib import Path
from acceptance.cluster.agent import Agent
from acceptance.serving.here import free_ports
from acceptance.serving.launcher import Part
agent = Agent("127.0.0.1")
argv = (sys.executable, "-c", sys.argv[2])
agent.start(Part(argv, {}, Path("unused"), sys.argv[1]))
print(agent.folder, flush=True)
agent.mind(float(sys.argv[3]))
"""


def part(tmp_path: Path, *argv: str) -> Part:
    log = tmp_path / "node1.log"
    return Part((sys.executable, "-c", *argv), {}, log, str(tmp_path), secret="the-key")


@pytest.fixture
def care(tmp_path: Path) -> Iterator[Callable[..., tuple[RemoteCare, NoRay]]]:
    """care(*argv of Python): a node's part in the care of an agent of this process."""
    made: list[RemoteCare] = []

    def taking(*argv: str) -> tuple[RemoteCare, NoRay]:
        ray, agent = NoRay(), Agent("127.0.0.1")
        asked = part(tmp_path, *argv)
        made.append(RemoteCare(ray, Handle(agent), agent.about(0), asked, "node 1 is here"))
        return made[-1], ray

    before = psutil.Process().children()
    yield taking
    for one in made:
        one.end(0.1)
    kill(marked(str(tmp_path)))
    # Wardens of an agent that was played lost: its process is this one, which does not end.
    kill([child for child in psutil.Process().children() if child not in before])


def until(true: Callable[[], object], seconds: float = 20.0) -> bool:
    limit = time.monotonic() + seconds
    while not true() and time.monotonic() < limit:
        time.sleep(0.05)
    return bool(true())


def test_the_log_comes_to_the_driver_with_a_note_of_the_node(care: Callable[..., object]) -> None:
    one, _ = care(SAYS, "60")  # type: ignore[misc]
    assert until(lambda: "the-key is here" in one.log.read_text())
    assert one.log.read_text().startswith("node 1 is here\n")
    assert (one.exited, one.lost, one.exit_code) == (False, False, None)
    assert one.pid in [process.pid for process in one.processes()]
    ended = one.end(5)
    assert (ended.code, ended.survivors) == (-signal.SIGTERM, ())
    assert one.log.read_text() == "node 1 is here\n******* is here\n"
    assert one.end(5) is ended


def test_an_end_is_heard_of(care: Callable[..., object]) -> None:
    one, _ = care("print('so it ends'); raise SystemExit(3)")  # type: ignore[misc]
    assert one.wait_exit(20) == 3
    assert one.exited
    assert one.fate == "ended with exit code 3"
    assert one.ended_at is not None
    one.end(1)
    assert "so it ends" in one.log.read_text()


def test_signals_reach_the_server(care: Callable[..., object]) -> None:
    one, _ = care(SAYS, "60")  # type: ignore[misc]
    one.signal(signal.SIGTERM)
    assert one.wait_exit(20) == -signal.SIGTERM


def test_an_agent_out_of_reach_is_a_lost_node(care: Callable[..., object]) -> None:
    one, ray = care(STUBBORN)  # type: ignore[misc]
    other, _ = care(SAYS, "60")  # type: ignore[misc]
    both = Together([other, one])
    assert not both.exited
    ray.dead = True
    assert until(lambda: both.exited)
    assert both.lost
    said = "lost node 1, which is out of reach: OutOfReach: The actor died unexpectedly."
    assert both.fate == said
    assert both.log == one.log
    assert one.wait_exit(0.1) is None
    # On this machine, what the agent has left is ended from here.
    assert len(one.end(1).survivors) >= 1
    assert until(lambda: not one.processes())


def test_a_late_answer_is_no_loss_and_long_silence_is(
    care: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, ray = care(SAYS, "60")  # type: ignore[misc]
    ray.late = True
    one.fetch()
    assert not one.lost
    monkeypatch.setattr(remote, "SILENT", 0.0)
    assert until(lambda: one.lost)
    assert one.fate == "is out of reach: no answer for 0 s"


def test_a_part_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    ray, agent = NoRay(), Agent("127.0.0.1")
    wrong = Part(("/no/such/program",), {}, tmp_path / "log", str(tmp_path))
    with pytest.raises(ServerError, match="its agent could not start it") as caught:
        RemoteCare(ray, Handle(agent), agent.about(0), wrong, "")
    assert "No such file or directory" in caught.value.cause


def test_a_node_says_who_it_is() -> None:
    about = Agent("127.0.0.1").about(3)
    assert about.boot == boot_id()
    assert about.interface
    assert len(set(about.ports)) == 3
    assert abs(about.time - time.time()) < 60
    assert free_ports(0) == ()


@pytest.mark.parametrize("how", ["killed", "silence"])
def test_a_part_ends_with_its_agent_and_with_its_driver(tmp_path: Path, how: str) -> None:
    """The agent is killed together with its children, as Ray may do it; or hears nothing more."""
    mark = str(tmp_path)
    patience = "3600" if how == "killed" else "1"
    command = [sys.executable, "-c", AGENT, mark, STUBBORN, patience]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    agent = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        folder = Path(agent.stdout.readline().strip())
        assert (folder / "server.log").is_file()
        assert marked(mark)
        if how == "killed":
            children = psutil.Process(agent.pid).children()
            assert [c for c in children if "acceptance.serving.warden" in c.cmdline()]
            kill([psutil.Process(agent.pid), *children])
        assert until(lambda: not marked(mark), 30)
        assert agent.wait(20) == -signal.SIGKILL
        assert until(lambda: not folder.exists())
    finally:
        agent.kill()
        kill(marked(mark))


def test_a_guard_has_no_mark_itself() -> None:
    """Or it would wait for its own end."""
    assert MARK not in os.environ


def test_without_ray_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match="Ray is not installed here"):
        connect("auto")
