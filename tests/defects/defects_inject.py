"""A pytest plugin (`-p defects_inject`): puts a defect around a server that the suite launches.

ACCEPTANCE_DEFECT holds JSON, by deployment:

    environment    variables that the server's process gets
    drop, add      flags that its command line loses (with how many values), and gains; {defects}
                   in them is this folder
    port_taken     the port that it is given belongs to somebody else
    simulation     faults of the simulated server
    without_plugins  names of the rehearsal's plugins for vLLM on CPU that are left out
    checkpoint     what is wrong with the files it loads (defects_checkpoint.py)
    state          of the made-up GPU, once it is leased, and when the server is ready:
                   {"start": {"taken_mib": 2000}, "ready": {"xid": 79}}
    during         the same, while the server starts: {"after": 1.5, "state": {...}}
    leave          the same, when the server has ended
    kill           who gets a signal once it is ready: {"after": 1, "signal": "SIGKILL",
                   "who": "api" or a part of a process's title}
    kill_in_start  the same while it starts: {"phases": ["loading"], ...}
    hold           the benchmark's client is kept from its core, again and again, as by a quota or
                   by others: {"stop": 0.15, "run": 0.05}, in seconds
    wait_for       a file: nothing of this deployment begins before it is there
    only           ends of node ids; other tests of this deployment are left out

The suite itself is not changed: what it calls to build a command is wrapped. One time is: a cell
that is invalid is measured again without a cool-down, which a simulated server has no use for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from acceptance.serving import here, launch

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.deployments.command import ServerCommand
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server

VARIABLE = "ACCEPTANCE_DEFECT"
DEFECTS: dict[str, dict[str, Any]] = json.loads(os.environ.get(VARIABLE) or "{}")
HERE = str(Path(__file__).resolve().parent)
CLIENT = "bench_worker"  # part of the client's command line
_squatters: list[socket.socket] = []
_over = threading.Event()  # what is done to one deployment's client


def of(deployment: Deployment) -> dict[str, Any]:
    """What is wrong with this deployment."""
    return DEFECTS.get(deployment.name, {})


def _prepare(original: Callable[..., launch.Preparation]) -> Callable[..., launch.Preparation]:
    def prepare(deployment: Deployment, *args: Any, **kwargs: Any) -> launch.Preparation:
        wrong = of(deployment)
        prepared = original(deployment, *args, **kwargs)
        env = {**prepared.env, **wrong.get("environment", {})}
        for name in wrong.get("without_plugins", ()):
            _unplug(prepared.env["PYTHONPATH"], name)
        if "simulation" in wrong:
            env["ACCEPTANCE_SIMULATION"] = json.dumps(wrong["simulation"])
        path = prepared.model_path
        if "checkpoint" in wrong:
            from defects_checkpoint import spoiled

            path = str(spoiled(Path(path), wrong["checkpoint"]))
        return dataclasses.replace(prepared, model_path=path, env=env)

    return prepare


def _unplug(path: str, name: str) -> None:
    """Takes a plugin of the rehearsal out of the overlay, which comes first in this path."""
    [listed] = Path(path.split(os.pathsep)[0]).glob("acceptance_cpu-*.dist-info/entry_points.txt")
    lines = listed.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(f"{name} =")]
    assert len(kept) == len(lines) - 1, name
    listed.write_text("\n".join([*kept, ""]), encoding="utf-8")


def _command(original: Callable[..., ServerCommand]) -> Callable[..., ServerCommand]:
    def command(deployment: Deployment, *args: Any, **kwargs: Any) -> ServerCommand:
        wrong = of(deployment)
        found = original(deployment, *args, **kwargs)
        added = (word.replace("{defects}", HERE) for word in wrong.get("add", ()))
        argv = (*_without(found.argv, wrong.get("drop", {})), *added)
        return dataclasses.replace(found, argv=argv)

    return command


def _without(argv: tuple[str, ...], drop: dict[str, int]) -> tuple[str, ...]:
    """drop: flag to how many values follow it."""
    kept: list[str] = []
    skip = 0
    for word in argv:
        if skip:
            skip -= 1
        elif word in drop:
            skip = drop[word]
        else:
            kept.append(word)
    return tuple(kept)


def _taken_port() -> int:
    """A port that somebody listens on who never answers."""
    squatter = socket.socket()
    squatter.bind(("127.0.0.1", 0))
    squatter.listen()
    _squatters.append(squatter)
    return int(squatter.getsockname()[1])


def _launch(original: Callable[..., Server]) -> Callable[..., Server]:
    def launched(deployment: Deployment, *args: Any, **kwargs: Any) -> Server:
        wrong = of(deployment)
        while "wait_for" in wrong and not Path(wrong["wait_for"]).exists():
            time.sleep(0.1)
        if "kill_in_start" in wrong:
            tell = kwargs.get("tell", lambda _: None)
            kwargs["tell"] = _killing(wrong["kill_in_start"], tell)
        _over.set()
        _state(wrong, "start")
        if "during" in wrong:
            _later(wrong["during"]["after"], lambda: _write(wrong["during"]["state"]))
        server = original(deployment, *args, **kwargs)
        _state(wrong, "ready")
        if "kill" in wrong:
            _later(wrong["kill"]["after"], lambda: _kill(server.pids(), wrong["kill"]))
        if "leave" in wrong:
            _leave(server, wrong)
        if "hold" in wrong:
            _over.clear()
            threading.Thread(target=_hold, args=(wrong["hold"],), daemon=True).start()
        return server

    return launched


def _leave(server: Server, wrong: dict[str, Any]) -> None:
    """What the GPU holds when the server has gone."""
    assert server.custody is not None
    end = server.custody.end

    def ended(*args: Any) -> Any:
        found = end(*args)
        _write(wrong["leave"])
        return found

    server.custody.end = ended  # type: ignore[method-assign]


def _state(wrong: dict[str, Any], moment: str) -> None:
    if state := wrong.get("state", {}).get(moment):
        _write(state)


def _write(state: dict[str, int]) -> None:
    """Changes what the made-up GPU answers; what is not named stays."""
    path = Path(os.environ["FAKE_NVML_STATE"])
    lines = path.read_text() + "".join(f"{name} {value}\n" for name, value in state.items())
    unfinished = path.with_suffix(".new")
    unfinished.write_text(lines)
    unfinished.rename(path)  # at once: the sampler reads it ten times a second


def _later(seconds: float, what: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()


def _hold(held: dict[str, float]) -> None:
    """Stops the client and lets it go on, until the next deployment."""
    while not _over.wait(held["run"]):
        clients = _titled(psutil.Process().children(recursive=True), CLIENT)
        for number, seconds in ((signal.SIGSTOP, held["stop"]), (signal.SIGCONT, 0.0)):
            for client in clients:
                with suppress(psutil.Error):
                    client.send_signal(number)
            time.sleep(seconds)


def _titled(processes: list[psutil.Process], words: str) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.Error):
            found += [process] if words in " ".join(process.cmdline()) else []
    return found


def _killing(kill: dict[str, Any], tell: Callable[[Any], None]) -> Callable[[Any], None]:
    """Sends the signal once the start is in the phase that is named."""
    done = threading.Event()

    def telling(progress: Any) -> None:
        tell(progress)
        if str(progress.phase) in kill["phases"] and not done.is_set():
            me = psutil.Process()
            if _kill([child.pid for child in me.children(recursive=True)], kill):
                done.set()  # else nobody has that title yet

    return telling


def _kill(pids: list[int], kill: dict[str, Any]) -> int:
    """How many were given the signal. who: "api" for the process that answers HTTP, else a part of
    a process's title."""
    wanted, given = kill.get("who", "api"), 0
    for pid in pids:
        with suppress(psutil.Error, OSError):
            title = " ".join(psutil.Process(pid).cmdline())
            api = " serve " in title and "warden" not in title
            if (wanted == "api" and api) or (wanted != "api" and wanted in title):
                os.kill(pid, getattr(signal, kill.get("signal", "SIGKILL")))
                given += 1
    return given


if DEFECTS:
    launch.prepare = _prepare(launch.prepare)
    launch.render_nodes = _command(launch.render_nodes)
    launch.simulated_command = _command(launch.simulated_command)
    launch.launch = _launch(launch.launch)
    if any(wrong.get("port_taken") for wrong in DEFECTS.values()):
        here.free_port = _taken_port


def pytest_configure() -> None:
    """When the suite's plugins are there, which pytest must be the first to import."""
    if DEFECTS:
        from fixtures import cells

        cells.COOL_DOWN = 0.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves of each deployment the tests that are named."""
    kept, left = [], []
    for item in items:
        call = getattr(item, "callspec", None)
        deployment = call.params.get("deployment") if call else None
        only = DEFECTS.get(getattr(deployment, "name", ""), {}).get("only")
        fits = only is None or any(fnmatchcase(item.nodeid, f"*{end}") for end in only)
        (kept if fits else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_unconfigure() -> None:
    _over.set()
    for squatter in _squatters:
        squatter.close()
