"""Against the NVML of this host, where it has a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pynvml
import pytest

from acceptance.gpus.inventory import take_inventory
from acceptance.gpus.lease import lease, survey
from acceptance.gpus.lock import LeaseRefused
from acceptance.gpus.memory import GpuMemory
from acceptance.gpus.nvml import open_nvml
from acceptance.gpus.probe import NoNvml, Unobservable, Violation, seen
from acceptance.gpus.sampler import MemorySampler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from acceptance.gpus.nvml import Nvml
    from acceptance.gpus.probe import Gpu

MIB = 1 << 20


@pytest.fixture(scope="module")
def nvml() -> Iterator[Nvml]:
    probe = open_nvml()
    if isinstance(probe, NoNvml):
        pytest.skip(f"needs a GPU ({probe})")
    with probe:
        yield probe


@pytest.fixture(scope="module")
def gpu(nvml: Nvml) -> Gpu:
    gpus = take_inventory(nvml, os.environ).gpus
    if not gpus:
        pytest.skip("needs a GPU that this process may use")
    return gpus[0]


@pytest.fixture
def idle(gpu: Gpu, nvml: Nvml, tmp_path: Path) -> Gpu:
    in_the_way = survey([gpu], nvml, directory=tmp_path)
    if in_the_way:
        pytest.skip(f"needs an idle GPU: {in_the_way[gpu.uuid]}")
    return gpu


def test_both_memory_queries_agree(nvml: Nvml, gpu: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
    old = pynvml.nvmlDeviceGetMemoryInfo(handle)
    new = seen(nvml.memory(gpu.uuid))
    assert new.total == old.total == gpu.total_bytes
    assert new.free == pytest.approx(old.free, abs=64 * MIB)
    assert new.taken >= 0
    if new.reserved is not None:
        assert old.total - old.free == pytest.approx(new.taken + new.reserved, abs=64 * MIB)


def test_a_uuid_leads_back_to_its_gpu(nvml: Nvml, gpu: Gpu) -> None:
    assert re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", gpu.uuid)
    handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
    assert pynvml.nvmlDeviceGetIndex(handle) == gpu.index
    assert gpu.kind in gpu.name
    for entry in (str(gpu.index), gpu.uuid, gpu.uuid[:12]):
        assert take_inventory(nvml, {"CUDA_VISIBLE_DEVICES": entry}).gpus == (gpu,)


def test_every_question_is_answered_or_refused_by_name(nvml: Nvml, gpu: Gpu) -> None:
    answers = [
        nvml.driver(),
        *(
            ask(gpu.uuid)
            for ask in (
                nvml.processes,
                nvml.ecc,
                nvml.remapped_rows,
                nvml.clock_reasons,
                nvml.power,
                nvml.power_limit,
                nvml.temperature,
                nvml.utilisation,
                nvml.mig,
                nvml.persistence,
                nvml.vbios,
            )
        ),
        *(nvml.violation_ns(gpu.uuid, violation) for violation in Violation),
    ]
    for answer in answers:
        print(answer)
        if isinstance(answer, Unobservable):
            assert answer.error.startswith("NVML_ERROR_")


def test_a_lease_is_exclusive(nvml: Nvml, idle: Gpu, tmp_path: Path) -> None:
    with lease([idle], nvml, run_dir="runs/first", directory=tmp_path) as held:
        assert held.cuda_visible_devices == idle.uuid
        with (
            pytest.raises(LeaseRefused, match="run runs/first"),
            lease([idle], nvml, directory=tmp_path),
        ):
            pass


def test_a_gpu_in_use_is_not_leased(nvml: Nvml, idle: Gpu, tmp_path: Path) -> None:
    """Memory that another process takes is seen, refuses a lease, and is gone when it ends."""
    script = (
        "import torch; block = torch.ones(2 << 30, dtype=torch.uint8, device='cuda');"
        "torch.cuda.synchronize(); print('ready', flush=True); input()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": idle.uuid},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert user.stdout is not None
        if user.stdout.readline() != "ready\n":
            pytest.skip("needs a PyTorch that can use this GPU")
        with MemorySampler(GpuMemory(nvml, [idle.uuid]), interval=3600) as sampler:
            in_the_way = survey([idle], nvml, directory=tmp_path)[idle.uuid]
        assert re.search(r"[2-9]\.\d GiB in use", in_the_way)
        assert seen(sampler.extremes(idle.uuid)).peak_used > 2 << 30
        with (
            pytest.raises(LeaseRefused, match="0 of 1 GPUs can be leased"),
            lease([idle], nvml, directory=tmp_path),
        ):
            pass
        print(in_the_way)
    finally:
        user.kill()
        user.communicate()
