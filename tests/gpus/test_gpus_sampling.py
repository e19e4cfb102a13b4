"""The sampler process sees what happens to GPUs, writes it as it happens, and ends with pytest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pynvml
import pytest
from gpus_fake_nvml import GIB, h200s
from gpus_world import World

from acceptance.errors import ObservationError
from acceptance.gpus.events import GpuEvent
from acceptance.gpus.monitor import Monitor
from acceptance.gpus.probe import ClockReasons, Unobservable, seen
from acceptance.gpus.tail import read_telemetry
from acceptance.gpus.telemetry import Span

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
LIMIT = 30.0
ALWAYS = Span()


def until(what: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_the_least_free_memory_of_each_gpu_in_each_span(tmp_path: Path) -> None:
    world = World(h200s(2), tmp_path / "t.jsonl")
    first, second = world.gpus
    for taken in (10, 130, 120):
        first.taken = taken * GIB
        world.tick()
    second.taken = GIB
    world.tick()
    found = world.read()
    whole = first.total - first.reserved
    assert found.least_free(first.uuid, ALWAYS) == whole - 130 * GIB
    assert found.least_free(first.uuid, Span(start=1003)) == whole - 120 * GIB
    assert found.least_free(second.uuid, ALWAYS) == whole - GIB
    assert found.free_at(first.uuid, 1001.5) == whole - 10 * GIB
    assert found.total == {first.uuid: first.total, second.uuid: second.total}


def test_memory_that_does_not_change_is_written_once_a_second(tmp_path: Path) -> None:
    world = World(h200s(1), tmp_path / "t.jsonl")
    for _ in range(20):
        world.now += 0.1
        world.sampling.memory()
    found = world.read()
    assert len(found.memory) == 2
    assert found.samples + 10 > world.sampling.ticks == 20


def test_a_lost_gpu_is_missed_with_its_reason_and_never_a_zero(tmp_path: Path) -> None:
    world = World(h200s(2), tmp_path / "t.jsonl")
    world.tick()
    world.gpus[1].lost = True
    world.tick()
    found = world.read()
    uuid = world.gpus[1].uuid
    answer = found.least_free(uuid, Span(start=1001.5))
    assert isinstance(answer, Unobservable)
    assert answer.error == "NVML_ERROR_GPU_IS_LOST"
    assert seen(found.least_free(uuid, ALWAYS)) > 0
    assert seen(found.least_free(world.gpus[0].uuid, Span(start=1001.5))) > 0


def test_what_the_driver_does_not_answer_is_told_once(tmp_path: Path) -> None:
    world = World(h200s(1), tmp_path / "t.jsonl")
    world.gpus[0].errors["nvmlDeviceGetTotalEccErrors"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    for _ in range(5):
        world.tick()
    found = world.read()
    answer = found.readings(world.gpus[0].uuid, "ecc_uncorrected", ALWAYS)
    assert isinstance(answer, Unobservable)
    assert answer.error == "NVML_ERROR_NOT_SUPPORTED"
    assert len([name for _, _, name, _ in found.missed if name == "ecc"]) == 1


def test_events_and_throttling_have_their_time(tmp_path: Path) -> None:
    world = World(h200s(1), tmp_path / "t.jsonl")
    gpu = world.gpus[0]
    world.tick()
    world.module.happen(gpu, 79)
    gpu.clock_reasons = ClockReasons.HW_THERMAL | ClockReasons.SW_POWER_CAP
    world.tick()
    found = world.read()
    assert found.events_in(Span(start=1001.5)) == [GpuEvent(gpu.uuid, "xid", 79)]
    assert found.events_in(Span(end=1001.5)) == []
    assert found.throttled(gpu.uuid, ALWAYS) == ClockReasons.HW_THERMAL
    assert found.throttled(gpu.uuid, Span(end=1001.5)) == ClockReasons(0)
    assert found.capped(gpu.uuid, ALWAYS) == 0.5


def test_a_line_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    world = World(h200s(1), tmp_path / "t.jsonl")
    world.tick()
    with world.path.open("a") as file:
        file.write('{"t": 1002.0, "kind": "mem')
    assert len(world.read().memory) == 1


def test_the_process_samples_registers_and_ends_whole(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "telemetry" / "d.gpus.jsonl"
    with Monitor(["GPU-0aaaaaaa-0000-4000-8000-000000000000"], path) as monitor:
        until(lambda: monitor.read().samples >= 5 or len(monitor.read().memory) >= 1)
        found = monitor.read()
        assert found.ended is None
        assert found.registered == {
            "GPU-0aaaaaaa-0000-4000-8000-000000000000": ("xid", "double_bit_ecc")
        }
    assert monitor.read().ended is not None


def test_a_sampler_that_was_killed_is_no_clean_record(library: Path, tmp_path: Path) -> None:
    with Monitor(["GPU-0aaaaaaa-0000-4000-8000-000000000000"], tmp_path / "t") as monitor:
        os.kill(monitor.pid, signal.SIGKILL)
        until(lambda: psutil.Process(monitor.pid).status() == psutil.STATUS_ZOMBIE)
        with pytest.raises(ObservationError, match="ended with -9"):
            monitor.read()


def test_without_nvml_nothing_is_sampled_and_the_reason_told(
    monkeypatch: pytest.MonkeyPatch, library: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_NVML_INIT", "9")
    with pytest.raises(ObservationError, match="cannot be sampled") as caught:
        Monitor(["GPU-0"], tmp_path / "t")
    assert caught.value.cause == "NVML: driver not loaded"


def test_the_process_ends_when_its_parent_is_killed(library: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from acceptance.gpus.monitor import Monitor;"
        f"m = Monitor(['GPU-0aaaaaaa-0000-4000-8000-000000000000'], Path({str(tmp_path / 't')!r}));"
        "print(m.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    sampler = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    gone, _ = psutil.wait_procs([sampler], LIMIT)
    assert gone
    assert read_telemetry(tmp_path / "t").ended is not None
