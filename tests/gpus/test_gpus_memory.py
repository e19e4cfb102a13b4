"""Memory of real processes, and of GPUs, through one sampler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from gpus_fake_nvml import GIB, MIB, FakePynvml, h200s

from acceptance.errors import ObservationError
from acceptance.gpus.memory import (
    HOST,
    GpuMemory,
    HostMemory,
    MemorySample,
    Missed,
    resident_bytes,
    tree_pids,
)
from acceptance.gpus.nvml import Nvml, open_nvml
from acceptance.gpus.probe import Unobservable, seen
from acceptance.gpus.sampler import MemorySampler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Fills `size` MiB before it forks; each line of input then adds that many to the parent.
SHARED = """
import os, signal, sys
block = b"\\x01" * (int(sys.argv[1]) << 20)
if os.fork() == 0:
    signal.pause()  # and leave the input to the parent
print("ready", flush=True)
more = []
for line in sys.stdin:
    more.append(b"\\x01" * (int(line) << 20))
    print("grown", flush=True)
"""
HOUR = 3600.0  # an interval that never passes: samples are then only taken where a phase turns


@contextmanager
def tree(mib: int) -> Iterator[subprocess.Popen[str]]:
    """A process and its fork that share `mib` MiB of memory."""
    process = subprocess.Popen(
        [sys.executable, "-c", SHARED, str(mib)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own session, so the fork too
        process.communicate()


def grow(process: subprocess.Popen[str], mib: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{mib}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "grown\n"


def test_shared_pages_count_once() -> None:
    with tree(200) as process:
        pids = tree_pids(process.pid)
        assert len(pids) == 2
        each = [psutil.Process(pid).memory_info().rss for pid in pids]
        assert sum(each) > 400 * MIB, "the fork does not share the memory, so this proves nothing"
        assert 200 * MIB < seen(resident_bytes(pids)) < 300 * MIB


def test_processes_that_vanished_count_nothing() -> None:
    with tree(100) as process:
        pids = tree_pids(process.pid)
        whole = seen(resident_bytes(pids))
        psutil.Process(pids[1]).kill()  # a zombie until its parent ends
        # Libraries are shared with other processes of the host, whose end leaves more to this one.
        assert 0 < seen(resident_bytes(pids)) < whole + 50 * MIB
    assert tree_pids(process.pid) == []
    gone = resident_bytes(pids)
    assert isinstance(gone, Unobservable)
    assert "no process of the tree is alive" in gone.reason


def test_resident_set_where_the_share_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: psutil.Process) -> Any:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
    rss = psutil.Process().memory_info().rss
    assert seen(resident_bytes([os.getpid()])) == pytest.approx(rss, rel=0.2)


def test_host_samples_say_total_free_and_the_trees_part() -> None:
    (sample,) = HostMemory(lambda: [os.getpid()]).sample()
    assert isinstance(sample, MemorySample)
    assert sample.device == HOST
    assert 0 < sample.used < sample.total
    assert 0 < sample.free < sample.total
    (missed,) = HostMemory(list).sample()
    assert isinstance(missed, Missed)


def test_a_growing_tree_is_seen_by_phase_and_kept_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "telemetry" / "rehearsal-tp-ep.jsonl"
    with tree(10) as process:
        host = HostMemory(lambda: tree_pids(process.pid))
        with MemorySampler(host, path=path, interval=HOUR, phase="loading") as sampler:
            sampler.phase("load")
            grow(process, 150)
            on_disk = path.read_text().splitlines()
            assert len(on_disk) == 3, "samples reach the file as they are taken"
            sampler.phase("idle")
    loading, load = seen(sampler.extremes(phase="loading")), seen(sampler.extremes(phase="load"))
    assert loading.growth < 50 * MIB
    assert 140 * MIB < load.growth < 200 * MIB
    assert load.peak_used == load.last_used
    assert seen(sampler.extremes()).peak_used >= load.peak_used
    assert seen(sampler.extremes()).samples == 6
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["loading"] * 2 + ["load"] * 2 + ["idle"] * 2
    assert set(lines[0]) == {"t", "phase", "device", "total", "free", "used"}


def test_the_thread_samples_between_phases() -> None:
    taken = 0

    class Counting:
        def sample(self) -> list[MemorySample | Missed]:
            nonlocal taken
            taken += 1
            return [MemorySample(HOST, 100, 50, taken)]

    with MemorySampler(Counting(), interval=0.001) as sampler:
        while taken < 20:
            pass
    assert seen(sampler.extremes()).samples == taken


def test_gpus_are_sampled_one_by_one_and_a_lost_one_is_told(tmp_path: Path) -> None:
    gpus = h200s(2)
    probe = open_nvml(FakePynvml(gpus))
    assert isinstance(probe, Nvml)
    path = tmp_path / "telemetry.jsonl"
    first, second = (gpu.uuid for gpu in gpus)
    memory = GpuMemory(probe, [first, second])
    with MemorySampler(memory, path=path, interval=HOUR, phase="ready") as sampler:
        gpus[0].taken = 100 * GIB
        sampler.phase("load")
        gpus[0].taken = 90 * GIB
        gpus[1].lost = True
    load = seen(sampler.extremes(first, "load"))
    assert (load.first_used, load.last_used, load.growth) == (100 * GIB, 90 * GIB, -10 * GIB)
    assert load.least_free == gpus[0].total - gpus[0].reserved - 100 * GIB
    lost = seen(sampler.extremes(second, "load"))
    assert (lost.samples, lost.missed) == (1, 1)
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["device"] == second
    assert last["error"] == "NVML_ERROR_GPU_IS_LOST"
    assert "used" not in last


def test_a_device_that_never_answered_is_unobservable() -> None:
    gpus = h200s(1)
    gpus[0].lost = True
    probe = open_nvml(FakePynvml(gpus))
    assert isinstance(probe, Nvml)
    with MemorySampler(GpuMemory(probe, [gpus[0].uuid]), interval=HOUR) as sampler:
        pass
    never = sampler.extremes(gpus[0].uuid)
    assert isinstance(never, Unobservable)
    assert never.error == "NVML_ERROR_GPU_IS_LOST"
    other = sampler.extremes("GPU-1", "load")
    assert isinstance(other, Unobservable)
    assert other.reason == "GPU-1 was not sampled during load"


def test_sampling_that_breaks_is_an_error_not_a_short_record() -> None:
    def broken() -> list[int]:
        raise RuntimeError("no such server")

    with MemorySampler(HostMemory(broken), interval=HOUR) as sampler:
        pass
    with pytest.raises(ObservationError, match="no such server"):
        sampler.extremes()
