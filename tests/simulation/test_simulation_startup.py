"""Starts that fail or hang: told as vLLM tells it, and read by the suite as what they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from acceptance.serving.cause import root_cause
from acceptance.simulation import log
from acceptance.simulation.faults import Faults
from acceptance.simulation.flags import parse
from acceptance.simulation.startup import FAILURES, Ended, start

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = parse(["deepseek-ai/DeepSeek-R1", "--tensor-parallel-size", "8"])
KINDS = {
    "weights": "cuda-oom-weights",
    "profiling": "cuda-oom-profiling",
    "no-cache": "kv-cache-none",
    "length": "kv-cache-too-small",
    "warmup": "cuda-oom-warmup",
    "capture": "cuda-oom-capture",
}


def started(faults: Faults, seconds: float = 5.0) -> None:
    lines = list(log.startup(SETTINGS, "0.32.0", 500_000, []))
    quick = faults.model_copy(update={"start_seconds": faults.start_seconds or 0.01})
    asyncio.run(asyncio.wait_for(start(SETTINGS, quick, lines), seconds))


def test_an_honest_start_says_every_line(capfd: pytest.CaptureFixture[str]) -> None:
    started(Faults())
    out = capfd.readouterr().out
    assert out.splitlines() == list(log.startup(SETTINGS, "0.32.0", 500_000, []))
    assert "is connected to 7 peer ranks" in out


@pytest.mark.parametrize("where", FAILURES)
def test_running_out_of_memory_is_told_where(
    where: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Ended) as ended:
        started(Faults.model_validate({"runs_out_at": where}))
    assert ended.value.code == 1
    file = tmp_path / "server.log"
    file.write_text(capfd.readouterr().out)
    cause = root_cause(file)
    assert cause is not None
    assert cause.kind == KINDS[where], cause


@pytest.mark.parametrize("spins", [False, True])
def test_a_silent_start_stays_at_its_line(spins: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TimeoutError):
        started(Faults(silent_at="vLLM is using nccl", spins=spins), 0.4)
    assert "vLLM is using nccl" in capfd.readouterr().out.splitlines()[-1]


def test_an_end_in_mid_start_has_code_0(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended) as ended:
        started(Faults(exits_at="Starting to load model"))
    assert ended.value.code == 0
    assert "Starting to load model" in capfd.readouterr().out.splitlines()[-1]


def test_a_slow_start_goes_on_talking() -> None:
    with pytest.raises(TimeoutError):
        started(Faults(start_seconds=60), 0.3)
