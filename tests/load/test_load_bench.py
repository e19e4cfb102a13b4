"""The client's command, and its life as a real process: ended, hung, crashed, orphaned."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from load_fakes import CountingServer, FakeTarget, all_failed, tool_json

from acceptance.errors import InputError, ObservationError, ServerError
from acceptance.load import counters
from acceptance.load.bench import run_cell as measure
from acceptance.load.cellrun import CellRun
from acceptance.load.cli import CliEngine, find_rust_client
from acceptance.load.command import command, environment
from acceptance.load.validity import check
from acceptance.load.warmup import WarmRule
from acceptance.load.workloads import Cell, make_cell

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cell(target: FakeTarget) -> Cell:
    """Four requests of 100 tokens in, 100 out."""
    return make_cell(target.deployment, "balanced-b16")


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "SETTLED_APART", 0.01)


def run_cell(target: FakeTarget, cell: Cell, run_dir: Path, **more: Any) -> CellRun:
    """The first repeat, by the command."""
    return measure(target, cell, run_dir, CliEngine(), **more)[0]


def gone(*pids: int) -> bool:
    return not any(psutil.pid_exists(pid) and _lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(holds: object, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if holds():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


def test_command_is_the_recipe_s_with_what_makes_it_repeatable(target: FakeTarget, cell: Cell):
    argv = command(target, cell, Path("/runs/1/cells/x.json"))
    assert argv[len(target.vllm.argv) :][:2] == ("bench", "serve")
    recipe = (
        f"--dataset-name random --random-input-len {cell.isl} --random-output-len {cell.osl} "
        "--request-rate 10000 --num-prompts 4 --ignore-eos"
    )
    assert recipe in " ".join(argv)
    pairs = dict(itertools.pairwise(argv))
    assert pairs["--model"] == "served-name"
    assert pairs["--tokenizer"] == "org/tokenizer"
    assert pairs["--seed"] == str(cell.seed)
    assert pairs["--ready-check-timeout-sec"] == "0"
    assert pairs["--percentile-metrics"] == "ttft,tpot,itl,e2el"
    assert pairs["--result-dir"] == "/runs/1/cells"
    assert pairs["--result-filename"] == "x.json"
    assert argv[argv.index("--goodput") + 1 :][:2] == ("ttft:2000", "tpot:80")
    metadata = argv[argv.index("--metadata") + 1 :]
    assert "asked_output_len=100" in metadata
    assert f"seed={cell.seed}" in metadata
    assert "client_version=0.32.0" in metadata
    assert "--temperature" not in argv
    assert not any("sesame" in part for part in argv)


def test_without_a_vllm_there_is_no_command(target: FakeTarget, cell: Cell):
    target.vllm = None
    with pytest.raises(ObservationError, match="no vLLM is installed"):
        command(target, cell, Path("x.json"))


def test_environment_has_this_server_s_key_and_no_other_instrument(target: FakeTarget):
    base = {"VLLM_USE_RUST_BENCH": "1", "OPENAI_API_KEY": "mine", "no_proxy": "corp", "HOME": "/h"}
    env = environment(target, base)
    assert "VLLM_USE_RUST_BENCH" not in env
    assert env["OPENAI_API_KEY"] == "sesame"
    assert env["HOME"] == "/h"
    assert env["no_proxy"] == "corp,127.0.0.1"
    assert env["NO_PROXY"] == "127.0.0.1"
    target.api_key, target.base_url = "", "https://far.example"
    env = environment(target, base)
    assert "OPENAI_API_KEY" not in env  # never somebody's key for somewhere else
    assert env["no_proxy"] == "corp"


def test_a_healthy_cell_is_valid_and_recorded(
    target: FakeTarget, cell: Cell, counting_server: CountingServer, tmp_path: Path
):
    run = run_cell(target, cell, tmp_path, warm=WarmRule(least=2, most=2))
    assert isinstance(run, CellRun)
    assert check(run) == ()
    assert run.window.end - run.window.start == pytest.approx(0.5)
    assert run.growth(counters.GENERATED) == {"0": 200.0, "1": 200.0}
    assert len(run.warmup.waves) == 2
    assert counting_server.keys == {"Bearer sesame"}
    said = run.client_log.read_text()
    assert said.startswith("$ ")
    assert "key given" in said
    assert "rust None" in said
    assert "sesame" not in said
    beside = json.loads((tmp_path / "cells" / "rehearsal-dp-ep.balanced-b16.run.json").read_text())
    assert beside["cell"]["seed"] == cell.seed
    assert beside["argv"][-1] == "client_version=0.32.0"
    assert "generation_config" in beside["sampling"]
    assert "result" not in beside
    assert (tmp_path / "cells" / "rehearsal-dp-ep.balanced-b16.json").exists()


def test_warm_up_prompts_have_the_cell_s_shape_and_are_all_different(
    target: FakeTarget, cell: Cell, counting_server: CountingServer, tmp_path: Path
):
    run = run_cell(target, cell, tmp_path, warm=WarmRule(least=2, most=3, change=0.0))
    assert not run.warmup.steady
    assert len(run.warmup.waves) == 3
    prompts = [tuple(body["prompt"]) for body in counting_server.seen]
    assert len(prompts) == len(set(prompts)) == 3 * cell.batch
    assert {len(prompt) for prompt in prompts} == {cell.isl}
    assert {body["max_tokens"] for body in counting_server.seen} == {64}
    assert all(body["ignore_eos"] for body in counting_server.seen)


def test_one_request_still_warms_every_engine(
    target: FakeTarget, counting_server: CountingServer, tmp_path: Path
):
    target.bench_env["FAKE_JSON"] = json.dumps(tool_json(1, 100, 100))
    run = run_cell(target, make_cell(target.deployment, "balanced-b1"), tmp_path)
    assert run.warmup.requests == 2
    assert 2 <= len(run.warmup.waves) <= 5


def test_all_requests_failing_is_a_broken_cell_not_a_pass(
    target: FakeTarget, cell: Cell, counting_server: CountingServer, tmp_path: Path
):
    counting_server.status = 500
    target.bench_env["FAKE_JSON"] = json.dumps(all_failed(4, 100))
    run = run_cell(target, cell, tmp_path)
    assert len(run.warmup.waves) == 1
    broken = {rule.rule for rule in check(run)}
    assert {"requests-completed", "requests-failed", "output-length", "warm-up-failed"} <= broken


def test_unreadable_metrics_are_a_broken_cell(
    target: FakeTarget, cell: Cell, counting_server: CountingServer, tmp_path: Path
):
    counting_server.metrics = False
    run = run_cell(target, cell, tmp_path, warm=WarmRule(least=1, most=1))
    assert {rule.rule for rule in check(run)} == {"metrics-missing"}


@pytest.mark.parametrize(
    ("mode", "happened", "cause"),
    [
        ("crash", "exit code 3", "ValueError: no such tokenizer"),
        ("silent", "without writing its result", ""),
    ],
)
def test_a_client_without_a_result_is_an_error_and_an_old_result_is_not_read(
    target: FakeTarget, cell: Cell, tmp_path: Path, mode: str, happened: str, cause: str
):
    run_cell(target, cell, tmp_path, warm=WarmRule(least=1, most=1))
    target.bench_env["FAKE_MODE"] = mode
    with pytest.raises(ObservationError, match=happened) as caught:
        run_cell(target, cell, tmp_path, warm=WarmRule(least=1, most=1))
    assert caught.value.cause == cause


def test_an_executable_that_is_not_there_is_an_error(
    target: FakeTarget, cell: Cell, tmp_path: Path
):
    target.vllm.argv = ("/no/such/vllm",)
    with pytest.raises(ObservationError, match="could not be started"):
        run_cell(target, cell, tmp_path, warm=WarmRule(least=1, most=1))


def hanging(target: FakeTarget, tmp_path: Path) -> Path:
    pids = tmp_path / "pids"
    target.bench_env |= {"FAKE_MODE": "hang", "FAKE_PIDS": str(pids)}
    return pids


def test_a_hung_client_is_ended_at_the_deadline_with_its_children(
    target: FakeTarget, cell: Cell, tmp_path: Path
):
    pids = hanging(target, tmp_path)
    with pytest.raises(ObservationError, match="did not end within 6 s"):
        run_cell(target, cell, tmp_path, warm=WarmRule(least=1, most=1), deadline=6)
    assert gone(*map(int, pids.read_text().split()))


def test_a_dying_server_ends_the_cell_at_once_with_its_cause(
    target: FakeTarget, cell: Cell, tmp_path: Path
):
    pids = hanging(target, tmp_path)

    class Dying(FakeTarget):
        def check(self) -> None:
            if pids.exists() and pids.read_text():
                raise ServerError("the server died", cause="CUDA error: out of memory")

    dying = Dying(**vars(target))
    with pytest.raises(ServerError) as caught:
        run_cell(dying, cell, tmp_path, warm=WarmRule(least=1, most=1), deadline=120)
    assert caught.value.cause == "CUDA error: out of memory"
    assert gone(*map(int, pids.read_text().split()))


def test_a_server_that_dies_in_warm_up_ends_it(target: FakeTarget, cell: Cell, tmp_path: Path):
    target.dead = ServerError("the server died")
    with pytest.raises(ServerError, match="the server died"):
        run_cell(target, cell, tmp_path)


def test_the_client_does_not_outlive_a_killed_parent(
    target: FakeTarget, fake_vllm: tuple[str, ...], tmp_path: Path
):
    pids = hanging(target, tmp_path)
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from acceptance.load.cli import run_client
        argv = [*sys.argv[2:], "bench", "serve"]
        run_client(argv, dict(os.environ), Path(sys.argv[1]), 600, lambda: None)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "client.log"), *fake_vllm],
        cwd=ROOT,
        env=environment(target) | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2, 30)
    finally:
        parent.kill()
        parent.wait()
    assert eventually(lambda: gone(*map(int, pids.read_text().split())), 15)


def test_the_rust_client_is_asked_for_by_name_alone(
    target: FakeTarget, cell: Cell, counting_server: CountingServer, tmp_path: Path
):
    engine = CliEngine(rust=True)
    (run,) = measure(target, cell, tmp_path, engine, warm=WarmRule(least=1, most=1))
    assert run.engine == "rust"
    assert "rust 1" in run.client_log.read_text()


def test_the_rust_client_is_found_beside_vllm_or_where_the_caller_says(
    target: FakeTarget, tmp_path: Path
):
    python = tmp_path / "venv" / "bin" / "python"
    target.vllm.python = str(python)
    with pytest.raises(InputError, match="no Rust benchmark client") as caught:
        find_rust_client(target.vllm)
    assert "--load-engine worker" in caught.value.hint
    binary = tmp_path / "venv" / "lib" / "python3.12" / "site-packages" / "vllm" / "vllm-rs"
    binary.parent.mkdir(parents=True)
    binary.write_text("")
    with pytest.raises(InputError):  # there, but nobody may run it
        find_rust_client(target.vllm)
    binary.chmod(0o755)
    assert find_rust_client(target.vllm, "auto") == binary
    assert find_rust_client(target.vllm, str(binary)) == binary
    with pytest.raises(InputError):
        find_rust_client(target.vllm, str(tmp_path / "elsewhere"))
