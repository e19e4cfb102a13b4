"""Workers that begin as copies of a process which has imported the tool: the same, and ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import psutil
import pytest
from load_fakes import FakeTarget, tool_json
from load_tool import SERVE, write_tool

from acceptance.load.command import command
from acceptance.load.copies import imported
from acceptance.load.worker import BenchWorker
from acceptance.load.workloads import Cell, make_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from acceptance.load.engine import ClientLoad

ROOT = Path(__file__).parents[2]
QUICK = 60.0  # seconds: a deadline nobody should reach
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True)"
OWNER = """
import sys, time
from acceptance.load.copies import imported
with imported() as env:
    print(*env.values(), flush=True)
    time.sleep(300)
"""


@pytest.fixture
def cell(target: FakeTarget) -> Cell:
    return make_cell(target.deployment, "balanced-b16")


@pytest.fixture
def tool(tmp_path: Path) -> dict[str, str]:
    """What has the fake tool imported, and lets it answer."""
    data = json.dumps(tool_json(4, 100, 100) | {"duration": 0.2})
    return {"PYTHONPATH": str(write_tool(tmp_path / "tool")), "FAKE_JSON": data}


@pytest.fixture
def worker(target: FakeTarget, tmp_path: Path) -> Iterator[Callable[[dict[str, str]], BenchWorker]]:
    made = []

    def make(env: dict[str, str]) -> BenchWorker:
        made.append(BenchWorker(target.vllm, env, tmp_path / f"worker{len(made)}.log"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def run(engine: BenchWorker, target: FakeTarget, cell: Cell, folder: Path) -> ClientLoad:
    argv = command(target, cell, folder / f"{cell.id}.{cell.seed}.json")
    return engine.run(target, argv, folder / "client.log", QUICK, target.check)


def of(env: dict[str, str], name: str) -> list[psutil.Process]:
    """Processes that stand for a copy, or have made some, or are one."""
    (address,) = env.values()
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if words[1:3] == ["-m", f"acceptance.load.inside.{name}"] and address in (
            *words,
            process.environ().get(next(iter(env))),
        ):
            found.append(process)
    return found


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    limit = time.monotonic() + seconds
    while not holds() and time.monotonic() < limit:
        time.sleep(0.1)
    return holds()


def test_workers_are_copies_and_end_as_workers_do(tool, worker, target, cell, tmp_path):
    with imported(tool) as env:
        first, second = worker({**tool, **env}), worker({**tool, **env, "FAKE_MODE": "late"})
        load = run(first, target, cell, tmp_path)
        assert run(second, target, cell, tmp_path).lag_max_ms >= 60  # its own environment
        assert load.cpu_share is not None
        (mother, *copies) = sorted(of(env, "bench_copies"), key=lambda one: one.create_time())
        assert len(copies) == 2
        for log in ("worker0.log", "worker1.log"):
            told = (tmp_path / log).read_text()
            assert told == f"a copy of {mother.pid}, which has imported the tool\n"
        said = (tmp_path / "client.log").read_text()
        assert "key sesame" in said
        assert "gpus ''" in said
        for standing in of(env, "bench_worker")[:1]:
            standing.kill()
        assert until(lambda: len(of(env, "bench_copies")) == 2)
        second.close()
        first.close()
        assert until(lambda: of(env, "bench_copies") == [mother])
    assert not of(env, "bench_copies")


def test_without_a_tool_that_can_be_copied_each_worker_imports(
    tool, worker, target, cell, tmp_path
):
    threads = write_tool(tmp_path / "threads", f"{THREAD}.start()\n{SERVE}")
    for broken in ({"PYTHONPATH": str(threads)}, {"FAKE_IMPORT": "fail"}):
        with imported({**tool, **broken}) as env:
            assert env == {}
    gone = {"ACCEPTANCE_BENCH_COPIES": str(tmp_path / "nobody")}
    run(worker({**tool, **gone}), target, cell, tmp_path)
    assert "importing the tool" in (tmp_path / "worker0.log").read_text()


def test_copies_of_another_interpreter_are_not_taken(tool, target, cell, tmp_path):
    """They would be of another vLLM."""
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    beside = str(Path(numpy.__file__).parents[1])  # which the link alone does not find
    with imported(tool) as env:
        env |= {**tool, "PYTHONPATH": os.pathsep.join((tool["PYTHONPATH"], beside))}
        vllm = replace(target.vllm, python=str(other))
        engine = BenchWorker(vllm, env, tmp_path / "worker.log")
        try:
            run(engine, target, cell, tmp_path)
        finally:
            engine.close()
    assert "importing the tool" in (tmp_path / "worker.log").read_text()


def test_nothing_is_left_of_one_whose_owner_is_killed(tool):
    env = {**os.environ, **tool}
    env["PYTHONPATH"] = os.pathsep.join((tool["PYTHONPATH"], str(ROOT)))
    with subprocess.Popen([sys.executable, "-c", OWNER], env=env, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        address = owner.stdout.readline().decode().strip()
        mine = {"ACCEPTANCE_BENCH_COPIES": address}
        assert len(of(mine, "bench_copies")) == 1
        owner.kill()
    assert until(lambda: not of(mine, "bench_copies"))
    assert not Path(address).parent.exists()
