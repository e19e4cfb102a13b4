"""The benchmark worker as a real process around a fake tool: reused, ended, dead, orphaned."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from load_fakes import FakeTarget, tool_json
from load_tool import SERVE, write_tool

from acceptance.errors import ObservationError, ServerError
from acceptance.load import worker
from acceptance.load.command import command
from acceptance.load.inside.bench_worker import load_of
from acceptance.load.worker import BenchWorker
from acceptance.load.workloads import Cell, make_cell, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
QUICK = 60.0  # seconds: a deadline nobody should reach


@pytest.fixture
def cell(target: FakeTarget) -> Cell:
    """Four requests of 100 tokens in, 100 out."""
    return make_cell(target.deployment, "balanced-b16")


@pytest.fixture
def make(target: FakeTarget, tmp_path: Path) -> Iterator[Callable[..., BenchWorker]]:
    """Makes workers whose vLLM is the fake tool; ends them."""
    made = []

    def making(serve: str = SERVE, **env: str) -> BenchWorker:
        folder = write_tool(tmp_path / f"tool{len(made)}", serve)
        data = json.dumps(tool_json(4, 100, 100) | {"duration": 0.2})
        env = {"PYTHONPATH": str(folder), "FAKE_JSON": data, **env}
        made.append(BenchWorker(target.vllm, env, tmp_path / "worker.log"))
        return made[-1]

    yield making
    for one in made:
        one.close()


def run(engine: BenchWorker, target: FakeTarget, cell: Cell, folder: Path, **more: Any) -> Any:
    """One run; the tool's file as it was written, and the client's load."""
    file = folder / f"{cell.id}.{cell.seed}.json"
    argv = command(target, cell, file)
    deadline, check = more.get("deadline", QUICK), more.get("check", target.check)
    load = engine.run(target, argv, folder / "client.log", deadline, check)
    return json.loads(file.read_text()), load


def pid_of(engine: BenchWorker) -> int:
    process = engine._process
    assert process is not None
    pid = process._custody.pid
    assert pid is not None
    return pid


def gone(pid: int, seconds: float = 15) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_many_cells_one_import(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    engine = make()
    second = take(cell, 1, 2)
    first_result, load = run(engine, target, cell, tmp_path)
    pid = pid_of(engine)
    second_result, _ = run(engine, target, second, tmp_path)
    assert pid_of(engine) == pid
    assert first_result["prompts"] != second_result["prompts"]
    assert load.lag_p99_ms is not None
    assert load.lag_max_ms >= load.lag_p99_ms >= 0
    assert load.cpu_share is not None
    log = (tmp_path / "client.log").read_text()
    assert log.startswith("$ ")
    assert log.count("importing") == 0  # that is in the worker's own log
    assert log.count("loading tokenizer") == 1  # kept from then on
    assert "key sesame" in log  # the fake tool prints it; ours does not:
    assert "gpus ''" in log
    assert "sesame" not in (tmp_path / "worker.log").read_text()
    assert "sesame" not in " ".join(psutil.Process(pid).cmdline())
    assert "sesame" not in str(psutil.Process(pid).environ())


def test_prompts_made_ahead_are_the_same_and_so_is_what_is_drawn_after(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    ahead, other = make(), make()
    ahead.prepare(target, [take(cell, 1, 2), cell])
    for one in (cell, take(cell, 1, 2)):
        log = tmp_path / "client.log"
        log.unlink(missing_ok=True)
        prepared, _ = run(ahead, target, one, tmp_path)
        said = log.read_text()
        fresh, _ = run(other, target, one, tmp_path)
        # A run goes before preparations that have not begun, so the first may make its own.
        if one is not cell:
            assert "making prompts" not in said
        assert prepared["prompts"] == fresh["prompts"]
        assert prepared["arrivals"] == fresh["arrivals"]


def test_a_blocked_event_loop_is_seen(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    _, load = run(make(FAKE_MODE="late"), target, cell, tmp_path)
    assert load.lag_max_ms >= 60


def test_load_is_taken_from_the_window_alone():
    looks = [(0.01 * i, 0.5 if i < 10 else 0.001, 0.002 * i) for i in range(100)]
    load = load_of(looks, 0.1, 0.99)
    assert load["lag_max_ms"] == pytest.approx(1.0)
    assert load["cpu_share"] == pytest.approx(0.2)
    assert load_of(looks, 5, 6) == {"lag_p99_ms": None, "lag_max_ms": None, "cpu_share": None}


@pytest.mark.parametrize(
    ("mode", "happened"),
    [
        ("fail", "failed: ValueError: no such tokenizer"),
        ("exit", "failed: the tool ended with exit code 3"),
        ("die", "died: it ended with exit code -9"),
    ],
)
def test_a_run_that_fails_is_a_named_error(
    make: Callable[..., BenchWorker],
    target: FakeTarget,
    cell: Cell,
    tmp_path: Path,
    mode: str,
    happened: str,
):
    with pytest.raises(ObservationError, match=happened) as caught:
        run(make(FAKE_MODE=mode), target, cell, tmp_path)
    assert caught.value.log == tmp_path / "client.log"


def test_a_failed_run_is_not_held_against_the_next(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    engine = make()
    argv = command(target, cell, tmp_path / "no-such-folder" / "x.json")
    with pytest.raises(ObservationError, match="failed: FileNotFoundError"):
        engine.run(target, argv, tmp_path / "client.log", QUICK, target.check)
    run(engine, target, cell, tmp_path)


def test_a_dead_worker_is_started_again(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    engine = make()
    run(engine, target, cell, tmp_path)
    first = pid_of(engine)
    psutil.Process(first).kill()
    assert gone(first)
    time.sleep(1.0)  # until its end is heard of
    run(engine, target, cell, tmp_path)
    assert pid_of(engine) != first


@pytest.mark.parametrize(
    ("serve", "env", "happened", "cause"),
    [
        (
            SERVE.replace("async def main_async", "async def main_new"),
            {},
            "cannot use",
            "main_async",
        ),
        ("raise ImportError('numba is too old')", {}, "cannot use", "numba is too old"),
        (SERVE, {"FAKE_IMPORT": "fail"}, "cannot use", "libcudart"),
        (SERVE, {"FAKE_IMPORT": "die"}, "died while importing", "importing the tool"),
    ],
)
def test_another_vllm_is_refused_with_the_way_out(
    make: Callable[..., BenchWorker],
    target: FakeTarget,
    cell: Cell,
    tmp_path: Path,
    serve: str,
    env: dict[str, str],
    happened: str,
    cause: str,
):
    engine = make(serve, **env)
    for _ in range(2):
        with pytest.raises(ObservationError, match=happened) as caught:
            run(engine, target, cell, tmp_path)
        assert cause in caught.value.cause
        assert "--load-engine cli" in caught.value.hint
    # What was refused once is not imported again for every cell.
    log = (tmp_path / "worker.log").read_text()
    assert log.count("Traceback") == (1 if happened == "cannot use" else 0)


def test_a_missing_interpreter_is_a_named_error(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    target.vllm.python = "/no/such/python"
    engine = make()
    engine.prepare(target, [cell])  # never raises
    with pytest.raises(ObservationError, match="could not be started"):
        run(engine, target, cell, tmp_path)


def test_one_that_is_interrupted_in_its_start_leaves_no_folder(
    make: Callable[..., BenchWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        assert list(tmp_path.glob("acceptance-*/worker"))
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "Custody", interrupted)
    monkeypatch.setattr(worker.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        make().start()
    assert not list(tmp_path.glob("acceptance-*"))


def test_a_hung_run_is_ended_at_its_deadline(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    engine = make(FAKE_MODE="hang")
    engine.start()
    pid = pid_of(engine)
    with pytest.raises(ObservationError, match="did not end within 2 s"):
        run(engine, target, cell, tmp_path, deadline=2)
    assert gone(pid)


def test_a_dying_server_ends_the_run_at_once(
    make: Callable[..., BenchWorker], target: FakeTarget, cell: Cell, tmp_path: Path
):
    engine = make(FAKE_MODE="hang")
    engine.start()
    pid, log = pid_of(engine), tmp_path / "client.log"

    def check() -> None:
        if log.exists() and "measuring" in log.read_text():
            raise ServerError("the server died", cause="CUDA error: out of memory")

    with pytest.raises(ServerError, match="the server died"):
        run(engine, target, cell, tmp_path, check=check)
    assert gone(pid)


def test_an_import_that_takes_too_long_is_a_named_error(
    make: Callable[..., BenchWorker],
    target: FakeTarget,
    cell: Cell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(worker, "START", 0.0)
    with pytest.raises(ObservationError, match="did not import vLLM within 0 s"):
        run(make("import time; time.sleep(300)"), target, cell, tmp_path)


def test_the_worker_does_not_outlive_a_killed_parent(
    target: FakeTarget, tmp_path: Path, make: Callable[..., BenchWorker]
):
    folder = write_tool(tmp_path / "tool")
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        sys.path.insert(0, "tests/load")
        from load_fakes import FakeVllm
        from acceptance.load.worker import BenchWorker
        engine = BenchWorker(FakeVllm(()), {"PYTHONPATH": sys.argv[1]}, Path(sys.argv[2]))
        engine.start()
        engine._process.wait_ready(lambda: None)
        print(engine._process._custody.pid, flush=True)
        time.sleep(300)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "worker.log")],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    address = Path(psutil.Process(pid).cmdline()[-1])
    assert not address.parent.exists()  # nothing is left behind in the folder for such things
    parent.kill()
    parent.wait()
    assert gone(pid)
