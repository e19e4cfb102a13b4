"""The suite on real vLLM (CPU): what only the real thing can show.

Needs the rehearsal's environment (./accept test); skipped elsewhere, with the reason.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from acceptance.deployments.installed import find_vllm
from acceptance.errors import InputError
from acceptance.serving.processes import leftovers
from reports.reading import read_results
from reports.ruling import verdict_of
from reports.schema import JudgementRecord, ServerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
GONE_WITHIN = 15.0  # seconds after pytest was killed; what the suite promises
START_WITHIN = 300.0


BEGAN = time.time()  # a vLLM that ran before is none of ours


def _no_cpu_vllm() -> str:
    try:
        found = find_vllm()
    except InputError as error:
        return error.happened
    return "" if found.cpu else f"vLLM {found.version} is a GPU build"


pytestmark = pytest.mark.skipif(bool(_no_cpu_vllm()), reason=f"real vLLM: {_no_cpu_vllm()}")


class Acceptance:
    """A run of the suite in a process of its own. out: what it printed, in a file."""

    def __init__(self, run_dir: Path, *arguments: str) -> None:
        self.run_dir = run_dir
        self.out = run_dir.with_suffix(".out")
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "--run-dir", str(run_dir), *arguments],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int:
        return self.process.wait(timeout=seconds)

    def wait_for(self, seen: Callable[[], bool], seconds: float = START_WITHIN) -> None:
        limit = time.monotonic() + seconds
        while not seen():
            assert self.process.poll() is None, self.out.read_text()[-3000:]
            assert time.monotonic() < limit, self.out.read_text()[-3000:]
            time.sleep(0.2)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def text(self) -> str:
        return self.out.read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def accept(tmp_path: Path) -> Iterator[Callable[..., Acceptance]]:
    started: list[Acceptance] = []

    def start(*arguments: str) -> Acceptance:
        started.append(Acceptance(tmp_path / f"run{len(started)}", *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()
    _assert_gone()


def _server_log(run: Acceptance) -> str:
    logs = list((run.run_dir / "servers").glob("*.log"))
    return logs[0].read_text(encoding="utf-8", errors="replace") if logs else ""


def _ours(pid: int) -> bool:
    try:
        return psutil.Process(pid).create_time() >= BEGAN - 1
    except psutil.Error:
        return False


def _vllm_processes() -> list[str]:
    """Command lines of every process since this file was loaded that looks like vLLM or was
    marked by the suite."""
    found = [left.command or str(left.pid) for left in leftovers() if _ours(left.pid)]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        if not _ours(int(entry.parent.name)):
            continue
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if command.startswith("VLLM::") or " bench serve " in command or "/vllm serve" in command:
            found.append(command)
    return found


def _assert_gone() -> None:
    limit = time.monotonic() + GONE_WITHIN
    while left := _vllm_processes():
        assert time.monotonic() < limit, left
        time.sleep(0.2)


def _records(run: Acceptance) -> list[Any]:
    results = read_results(run.run_dir)
    assert not results.problems
    return list(results.records)


# Of conformance and correctness what lives from the trained model; the rest takes minutes, and is
# what `./accept rehearse` is for.
PART = (
    *("suites/memory", "suites/performance"),
    *("suites/conformance/test_live_config.py", "suites/conformance/test_reasoning.py"),
    *("suites/conformance/test_tools.py", "suites/correctness/test_agreement.py"),
    *("suites/correctness/test_long_context.py", "suites/correctness/test_accuracy.py"),
)


def test_a_rehearsal_holds(accept: Callable[..., Acceptance]) -> None:
    """One layout through part of the suites on real vLLM: nothing falls short but for being a
    part, which a verdict cannot rest on.

    Its report, results and files hold no API key, and nothing says ACCEPTED.
    """
    run = accept("--deployment", "rehearsal-tp-ep", "--tier", "smoke", *PART)
    status = run.wait(600)
    text = run.text()
    assert status != 0, text[-5000:]
    assert re.search(r"^INCOMPLETE\s+rehearsal-tp-ep", text, re.MULTILINE), text[-3000:]
    assert "only part of the checks ran" in text
    report = (run.run_dir / "acceptance.html").read_text(encoding="utf-8")
    assert "rehearsal: real vLLM on CPU" in report
    assert not re.search(r"\bACCEPTED\b", report + text)
    verdict = verdict_of(read_results(run.run_dir))
    assert [(t.failed, t.invalid, t.errors) for t in verdict.tallies] == [(0, 0, 0)], text[-3000:]
    outcomes = {r.judgement.outcome for r in _records(run) if isinstance(r, JudgementRecord)}
    assert "PASS" in outcomes
    assert (run.run_dir / "junit.xml").stat().st_size > 0
    for line in (run.run_dir / "results.jsonl").read_text().splitlines():
        json.loads(line)


def test_kill_during_start_leaves_nothing(accept: Callable[..., Acceptance]) -> None:
    """kill -9 of pytest while engines are starting: everything is gone within 15 s."""
    run = accept("--deployment", "rehearsal-tp-ep", "--tier", "smoke")
    run.wait_for(lambda: "EngineCore" in _server_log(run))
    run.kill()
    _assert_gone()
    assert [type(record).__name__ for record in _records(run)] == ["RunRecord"]


def test_kill_during_a_cell_leaves_nothing(accept: Callable[..., Acceptance]) -> None:
    """kill -9 of pytest while a cell is measured: server and client are gone, results stay."""
    run = accept(
        *("--deployment", "rehearsal-tp-ep", "--tier", "smoke"),
        *("--load-engine", "cli", "suites/performance"),
    )
    run.wait_for(lambda: any(" bench serve " in command for command in _vllm_processes()))
    run.kill()
    _assert_gone()
    assert any(isinstance(record, ServerRecord) for record in _records(run))


def test_missing_collective_is_rejected_though_healthy(accept: Callable[..., Acceptance]) -> None:
    """Without the data-parallel plugin DP+EP answers /health and cannot generate: REJECTED,
    naming the exception and the function it comes from."""
    run = accept(
        *("--deployment", "rehearsal-dp-ep", "--tier", "smoke"),
        *("--option", "data_parallel_plugin=false"),
    )
    assert run.wait(400) != 0
    text = run.text()
    report = (run.run_dir / "acceptance.html").read_text(encoding="utf-8")
    assert re.search(r"^REJECTED\s+rehearsal-dp-ep", text, re.MULTILINE), text[-3000:]
    for said in (text, report):
        assert "NotImplementedError in all_gatherv" in said
    failed = [r for r in _records(run) if isinstance(r, ServerRecord) and r.outcome == "failed"]
    assert len(failed) == 1
    assert "answered /health with 200" in " ".join(failed[0].trace.excerpt)
    assert text.count("ERROR suites/") == 1, text[-3000:]
