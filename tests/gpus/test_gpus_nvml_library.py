"""The real nvidia-ml-py against a made-up libnvidia-ml.so.1: structures, errors and loading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import acceptance

ROOT = Path(acceptance.__file__).parents[1]
ASK = """
import json, os
from acceptance.gpus.inventory import lacks, take_inventory
from acceptance.gpus.nvml import open_nvml
from acceptance.gpus.probe import NoNvml
probe = open_nvml()
told = {"lacks": lacks("H200", 8, take_inventory(probe, os.environ)), "nvml": str(probe)}
if not isinstance(probe, NoNvml):
    first, second = probe.gpus()
    uuid = first.uuid
    told |= {
        name: repr(answer)
        for name, answer in {
            "first": first, "second": second, "memory": probe.memory(uuid),
            "processes": probe.processes(uuid), "mig": probe.mig(uuid),
            "rows": probe.remapped_rows(uuid), "power": probe.power(uuid),
        }.items()
    }
    probe.close()
print(json.dumps(told))
"""


def ask(library: Path, **environ: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(library)} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_answers_cross_the_library_boundary_whole(library: Path) -> None:
    told = ask(library, CUDA_VISIBLE_DEVICES="0,1")
    gib, mib = 1 << 30, 1 << 20
    assert "uuid='GPU-0aaaaaaa-0000-4000-8000-000000000000'" in told["first"]
    assert "kind='H200', pci='00000000:01:00.0'" in told["first"]
    assert f"total={143771 * mib}, " in told["memory"]
    assert f"used={40 * gib}, reserved={615 * mib}" in told["memory"]
    assert f"pid=4711, used_bytes={40 * gib}" in told["processes"]
    assert "pid=4712, used_bytes=None" in told["processes"]
    assert told["rows"] == (
        "RemappedRows(correctable=1, uncorrectable=2, pending=True, failed=False)"
    )


def test_refusals_cross_it_with_their_names(library: Path) -> None:
    told = ask(library)
    assert "error='NVML_ERROR_GPU_IS_LOST'" in told["second"]
    assert "error='NVML_ERROR_NOT_SUPPORTED'" in told["mig"]
    assert "error='NVML_ERROR_FUNCTION_NOT_FOUND'" in told["power"]
    assert told["lacks"].startswith("needs 8 H200, this host has 1 of 8 (GPU 1 does not answer")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("9", "driver not loaded"),
        ("4", "no permission to talk to the driver"),
        ("18", "library and driver are of different versions"),
    ],
)
def test_a_driver_that_refuses_is_no_nvml(library: Path, number: str, reason: str) -> None:
    told = ask(library, FAKE_NVML_INIT=number)
    assert told["nvml"] == f"NVML: {reason}"
    assert told["lacks"] == f"needs 8 H200, this host has 0 of 8 (NVML: {reason})"
