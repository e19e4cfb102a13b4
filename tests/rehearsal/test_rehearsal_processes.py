"""Engines and workers that begin with their modules imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from acceptance.deployments.command import ServerCommand
from acceptance.deployments.installed import Vllm
from acceptance.deployments.load import load_deployments, with_options
from acceptance.serving import launch

ROOT = Path(__file__).parents[2]
# In place of vLLM: a worker, and something that is none. What each tells: whether it began with
# what was imported before, its environment, cores and who waits for it.
SERVER = """
import json, multiprocessing, os, pathlib, sys

class WorkerProc:
    @staticmethod
    def worker_main(pipe): tell(pipe)

def tell(pipe):
    import setproctitle
    environment = dict(os.environ)
    setproctitle.setproctitle("VLLM::Told")
    pipe.send({"copied": "colorsys" in sys.modules, "environment": environment,
               "cores": sorted(os.sched_getaffinity(0)),
               "title": pathlib.Path("/proc/self/cmdline").read_text().strip(chr(0))})

if __name__ == "__main__":
    from acceptance.rehearsal.inside import cpu_processes
    cpu_processes.register()
    context = multiprocessing.get_context("spawn")
    core = min(os.sched_getaffinity(0))
    told = []
    for target, cores in ((WorkerProc.worker_main, f"{core}"), (WorkerProc.worker_main, "0 1"),
                          (tell, f"{core}")):
        os.environ.update(SAID="later", GOMP_CPU_AFFINITY=cores, SPT_NOENV="1")
        os.environ.pop("UNSAID", None)
        mine, its = context.Pipe()
        process = context.Process(target=target, args=(its,))
        process.start()
        told.append(mine.recv())
        told[-1]["as_mine"] = told[-1].pop("environment") == dict(os.environ)
        process.join()
        told[-1]["code"] = process.exitcode
    print(json.dumps(told))
"""
# The module itself, with modules that every Python has and no libraries.
BEGIN = """
import sys
from acceptance.rehearsal.inside import preloading
preloading._libraries = lambda: []
preloading.SERVE = ("from acceptance.rehearsal.inside import preloading; "
    "preloading.MODULES = ('colorsys',); {}preloading.serve({{}}, {{}})").format(sys.argv.pop(1))
preloading.main()
"""


@pytest.mark.parametrize("begins", ["", "import threading, time; "])
def test_a_worker_is_a_copy_of_what_was_imported(tmp_path: Path, begins: str) -> None:
    """Only where one thread did that; else it is spawned, as what is no worker always is."""
    if begins:
        begins += "threading.Thread(target=time.sleep, args=(2,), daemon=True).start(); "
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    told = subprocess.run(
        [sys.executable, "-c", BEGIN, begins, sys.executable, str(server)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ACCEPTANCE_SOCKETS": str(tmp_path),
            "UNSAID": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
    worker, wide, other = json.loads(told.stdout.splitlines()[-1])
    assert [one["copied"] for one in (worker, wide, other)] == [not begins, False, False]
    assert {one["as_mine"] for one in (worker, wide, other)} == {True}
    assert {one["title"] for one in (worker, wide, other)} == {"VLLM::Told"}
    assert {one["code"] for one in (worker, wide, other)} == {0}
    if not begins:
        assert len(worker["cores"]) == 1


@pytest.mark.parametrize(
    ("word", "option", "expected"),
    [
        ("", "enforce_eager=true", True),
        ("0", "enforce_eager=true", False),
        ("", "enforce_eager=false", False),
    ],
)
def test_a_rehearsal_has_a_starter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, option: str, expected: bool
) -> None:
    """Unless the environment says no, or something is compiled."""
    monkeypatch.setattr(launch, "ensure_checkpoint", lambda: Path("/cache/tiny"))
    monkeypatch.setenv(launch.PRELOADING, word)
    rehearsal = with_options(load_deployments()["rehearsal-dp-ep"], [option])
    vllm = Vllm(Version("0.32.0"), ("vllm",), cpu=True)
    starter = (vllm.python, "-m", launch.STARTER)
    assert launch.prepare(rehearsal, vllm, tmp_path).starter == (starter if expected else ())


def test_the_recorded_command_says_that_a_starter_ran() -> None:
    other = ServerCommand(("vllm", "serve", "--headless"), {}, ())
    told = launch._preloading(ServerCommand(("vllm", "serve"), {}, (), others=(other,)))
    assert told.shell().count(f"export {launch.PRELOADING}=1\nvllm serve") == 2
