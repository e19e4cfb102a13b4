"""Which GPUs a run may use, and the sentence for what is missing."""

from __future__ import annotations

import pynvml
import pytest
from gpus_fake_nvml import FakeGpu, FakePynvml, b200s, h200s

from acceptance.errors import InputError
from acceptance.gpus.inventory import Inventory, choose, kind_of, lacks, take_inventory
from acceptance.gpus.nvml import open_nvml
from acceptance.gpus.probe import NoNvml

NONE = NoNvml("library not found", "NVML_ERROR_LIBRARY_NOT_FOUND")


def inventory(
    gpus: list[FakeGpu], visible: str | None = None, spec: str | None = None
) -> Inventory:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return take_inventory(open_nvml(FakePynvml(gpus)), environ, spec)


def indexes(found: Inventory) -> list[int]:
    return [gpu.index for gpu in found.gpus]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
    ],
)
def test_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("4,5,6,7", [4, 5, 6, 7]),
        ("3, 1", [3, 1]),
        ("0,9,1", [0]),
        ("0,1,1", [0, 1]),
        ("GPU-2aaaaaaa-0000-4000-8000-000000000002,0", [2, 0]),
        ("GPU-2a", [2]),
        ("GPU-", []),
        ("banana", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    visible: str | None, expected: list[int]
) -> None:
    assert indexes(inventory(h200s(8), visible)) == expected


def test_what_is_hidden_is_told() -> None:
    found = inventory(h200s(8), "0,9,1")
    assert "9 names no usable GPU, so CUDA stops reading there" in found.notes
    assert "CUDA_VISIBLE_DEVICES=0,9,1 leaves 1 of 8" in found.notes


def test_four_of_eight_visible() -> None:
    found = inventory(b200s(8), "4,5,6,7")
    assert lacks("B200", 4, found) is None
    assert lacks("B200", 8, found) == (
        "needs 8 B200, this host has 4 of 8 (CUDA_VISIBLE_DEVICES=4,5,6,7 leaves 4 of 8)"
    )


def test_an_ambiguous_uuid_names_nothing() -> None:
    gpus = [FakeGpu("GPU-11aa"), FakeGpu("GPU-11bb")]
    assert indexes(inventory(gpus, "GPU-11")) == []
    assert indexes(inventory(gpus, "GPU-11b")) == [1]


def test_mig_is_refused_with_a_reason() -> None:
    gpus = h200s(2)
    gpus[1].mig = 1
    found = inventory(gpus)
    assert indexes(found) == [0]
    assert any("GPU 1" in note and "MIG" in note for note in found.notes)
    found = inventory(h200s(2), "MIG-7d3c,0")
    assert indexes(found) == [0]
    assert any(note.startswith("MIG-7d3c is a MIG slice") for note in found.notes)
    with pytest.raises(InputError, match="MIG slice"):
        inventory(h200s(2), spec="MIG-7d3c")


def test_mig_mode_that_is_not_told_is_no_mig() -> None:
    gpus = h200s(1)
    gpus[0].errors["nvmlDeviceGetMigMode"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert indexes(inventory(gpus)) == [0]


def test_a_lost_gpu_is_missing_by_name() -> None:
    gpus = h200s(8)
    gpus[3].lost = True
    missing = lacks("H200", 8, inventory(gpus))
    assert missing is not None
    assert missing.startswith("needs 8 H200, this host has 7 of 8 (GPU 3 does not answer")
    assert "NVML_ERROR_GPU_IS_LOST" in missing


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("2", [0, 1]),
        ("8", [0, 1, 2, 3]),
        ("0", []),
        ("0,1", [0, 1]),
        ("3,", [3]),
        ("3, 1", [3, 1]),
        ("GPU-1b,GPU-3bbbbbbb-0000-4000-8000-000000000003", [1, 3]),
    ],
)
def test_gpus_option(spec: str | None, expected: list[int]) -> None:
    assert indexes(inventory(b200s(4), spec=spec)) == expected


def test_a_count_takes_busy_gpus_last() -> None:
    gpus = inventory(b200s(8)).gpus
    busy = {gpu.uuid for gpu in gpus[:3]}
    assert [gpu.index for gpu in choose(gpus, "4", avoid=busy)] == [3, 4, 5, 6]
    assert [gpu.index for gpu in choose(gpus, "6", avoid=busy)] == [0, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("spec", ["0,9", "-1", "four", "", "GPU-zz", "0,0", "1.5", "0,,1", "GPU-"])
def test_a_bad_option_names_what_exists(spec: str) -> None:
    with pytest.raises(InputError) as refused:
        inventory(b200s(4), "0,1", spec)
    text = str(refused.value)
    assert f"--gpus {spec}" in text
    assert "GPU 1 (NVIDIA B200, GPU-1bbbbbbb-0000-4000-8000-000000000001)" in text
    assert "GPU 2" not in text


def test_a_list_on_a_host_without_gpus_says_why_there_are_none() -> None:
    with pytest.raises(InputError) as refused:
        take_inventory(NONE, {}, "0,1")
    assert "NVML: library not found" in str(refused.value)


def test_what_a_host_without_gpus_lacks() -> None:
    found = take_inventory(NONE, {"CUDA_VISIBLE_DEVICES": "0"}, "4")
    assert lacks("B200", 4, found) == (
        "needs 4 B200, this host has 0 of 4 (NVML: library not found)"
    )
    assert lacks(None, 0, found) is None
    assert lacks("B200", 4, inventory([])) == (
        "needs 4 B200, this host has 0 of 4 (NVML lists no GPU)"
    )


def test_what_a_host_of_another_kind_lacks() -> None:
    assert lacks("B200", 4, inventory(h200s(8))) == (
        "needs 4 B200, this host has 0 of 4 (it has 8 H200)"
    )


def test_what_the_option_leaves_out_is_told() -> None:
    assert lacks("H200", 8, inventory(h200s(8), spec="4")) == (
        "needs 8 H200, this host has 4 of 8 (--gpus 4 leaves out 4 of them)"
    )
