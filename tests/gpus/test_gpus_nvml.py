"""NVML's answers become values, and its refusals stay refusals."""

from __future__ import annotations

import inspect
import sys
import threading
from typing import TYPE_CHECKING

import pynvml
import pytest
from gpus_fake_nvml import GIB, FakeGpu, FakePynvml, b200s, h200s

from acceptance.errors import ObservationError
from acceptance.gpus.nvml import Nvml, open_nvml
from acceptance.gpus.probe import (
    ClockReasons,
    ComputeProcess,
    Ecc,
    Memory,
    NoNvml,
    NvLinks,
    Pcie,
    PowerLimit,
    Probe,
    RemappedRows,
    Unobservable,
    Utilisation,
    Violation,
    seen,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ASK: dict[str, Callable[[Probe, str], object]] = {
    "nvmlDeviceGetMemoryInfo": lambda probe, uuid: probe.memory(uuid),
    "nvmlDeviceGetComputeRunningProcesses": lambda probe, uuid: probe.processes(uuid),
    "nvmlDeviceGetTotalEccErrors": lambda probe, uuid: probe.ecc(uuid),
    "nvmlDeviceGetRemappedRows": lambda probe, uuid: probe.remapped_rows(uuid),
    "nvmlDeviceGetCurrentClocksEventReasons": lambda probe, uuid: probe.clock_reasons(uuid),
    "nvmlDeviceGetViolationStatus": lambda probe, uuid: probe.violation_ns(uuid, Violation.POWER),
    "nvmlDeviceGetPowerUsage": lambda probe, uuid: probe.power(uuid),
    "nvmlDeviceGetEnforcedPowerLimit": lambda probe, uuid: probe.power_limit(uuid),
    "nvmlDeviceGetTotalEnergyConsumption": lambda probe, uuid: probe.energy(uuid),
    "nvmlDeviceGetCurrPcieLinkWidth": lambda probe, uuid: probe.pcie(uuid),
    "nvmlDeviceGetNvLinkState": lambda probe, uuid: probe.nvlinks(uuid),
    "nvmlDeviceGetP2PStatus": lambda probe, uuid: probe.p2p(uuid, uuid),
    "nvmlDeviceGetTemperature": lambda probe, uuid: probe.temperature(uuid),
    "nvmlDeviceGetUtilizationRates": lambda probe, uuid: probe.utilisation(uuid),
    "nvmlDeviceGetMigMode": lambda probe, uuid: probe.mig(uuid),
    "nvmlDeviceGetPersistenceMode": lambda probe, uuid: probe.persistence(uuid),
    "nvmlDeviceGetVbiosVersion": lambda probe, uuid: probe.vbios(uuid),
}
REFUSALS = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: "NVML_ERROR_NOT_SUPPORTED",
    pynvml.NVML_ERROR_NO_PERMISSION: "NVML_ERROR_NO_PERMISSION",
    pynvml.NVML_ERROR_GPU_IS_LOST: "NVML_ERROR_GPU_IS_LOST",
    pynvml.NVML_ERROR_RESET_REQUIRED: "NVML_ERROR_RESET_REQUIRED",
    pynvml.NVML_ERROR_UNKNOWN: "NVML_ERROR_UNKNOWN",
}


def opened(gpus: list[FakeGpu], **options: bool) -> Nvml:
    probe = open_nvml(FakePynvml(gpus, **options))
    assert isinstance(probe, Nvml)
    return probe


@pytest.mark.parametrize(
    ("gpus", "kind", "gib"), [(h200s(8), "H200", 140), (b200s(4), "B200", 180)]
)
def test_a_whole_host_is_identified(gpus: list[FakeGpu], kind: str, gib: int) -> None:
    listed = [seen(gpu) for gpu in opened(gpus).gpus()]
    assert [gpu.uuid for gpu in listed] == [gpu.uuid for gpu in gpus]
    assert [gpu.index for gpu in listed] == list(range(len(gpus)))
    assert {gpu.kind for gpu in listed} == {kind}
    assert {round(seen(gpu.total_bytes) / GIB) for gpu in listed} == {gib}
    assert listed[1].pci == "00000000:02:00.0"
    assert listed[0].driver == "580.159.04"
    assert listed[0].mig is False


def test_every_answer_of_a_healthy_gpu() -> None:
    gpu = b200s(1)[0]
    gpu.taken, gpu.processes = 100 * GIB, [(4711, 60 * GIB), (4712, None)]
    gpu.links = {0: 1, 1: 1, 2: 0, 3: 1}
    gpu.rows, gpu.uncorrected, gpu.clock_reasons = (3, 1, 1, 0), 2, 0x44
    gpu.violations = {pynvml.NVML_PERF_POLICY_THERMAL: 5_000_000}
    probe = opened([gpu])
    assert probe.memory(gpu.uuid) == Memory(180 * GIB, 79 * GIB, 100 * GIB, GIB)
    assert seen(probe.memory(gpu.uuid)).taken == 100 * GIB
    assert probe.processes(gpu.uuid) == (
        ComputeProcess(4711, 60 * GIB),
        ComputeProcess(4712, None),
    )
    assert probe.ecc(gpu.uuid) == Ecc(enabled=True, uncorrected=2)
    assert probe.remapped_rows(gpu.uuid) == RemappedRows(3, 1, pending=True, failed=False)
    reasons = seen(probe.clock_reasons(gpu.uuid))
    assert reasons == ClockReasons.SW_POWER_CAP | ClockReasons.HW_THERMAL
    assert reasons.throttled == ClockReasons.HW_THERMAL
    assert reasons.names == ("sw_power_cap", "hw_thermal")
    assert ClockReasons(0x4004).names == ("sw_power_cap", "0x4000")
    assert probe.violation_ns(gpu.uuid, Violation.THERMAL) == 5_000_000
    assert probe.power(gpu.uuid) == 76.5
    assert probe.power_limit(gpu.uuid) == PowerLimit(1000.0, 1000.0)
    assert probe.energy(gpu.uuid) == 1234.0
    assert probe.pcie(gpu.uuid) == Pcie(16, 16)
    assert probe.nvlinks(gpu.uuid) == NvLinks(up=(0, 1, 3), down=(2,))
    assert probe.p2p(gpu.uuid, gpu.uuid) is True
    assert probe.temperature(gpu.uuid) == 31
    assert probe.utilisation(gpu.uuid) == Utilisation(97, 60)
    assert probe.persistence(gpu.uuid) is True
    assert probe.vbios(gpu.uuid) == "96.00.BC.00.01"


def test_the_table_below_asks_all_there_is() -> None:
    asked = {name for name, _ in inspect.getmembers(Probe, inspect.isfunction)}
    assert len(ASK) == len([name for name in asked if name[0] != "_"]) - len({"gpus", "driver"})


@pytest.mark.parametrize("function", ASK)
@pytest.mark.parametrize(("number", "name"), REFUSALS.items(), ids=REFUSALS.values())
def test_a_refusal_is_never_a_value(function: str, number: int, name: str) -> None:
    gpu = h200s(1)[0]
    gpu.errors[function] = number
    gpu.violations = {pynvml.NVML_PERF_POLICY_POWER: 0}
    answer = ASK[function](opened([gpu]), gpu.uuid)
    assert isinstance(answer, Unobservable)
    assert answer.error == name
    assert gpu.uuid in answer.reason


def test_unobservable_is_neither_true_nor_false() -> None:
    answer = Unobservable("MIG mode of GPU-0: Not Supported", "NVML_ERROR_NOT_SUPPORTED")
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(answer)
    with pytest.raises(ObservationError, match=r"MIG mode .*NVML_ERROR_NOT_SUPPORTED"):
        seen(answer)


def test_a_gpu_lost_in_mid_run_is_named_and_the_others_go_on() -> None:
    gpus = h200s(4)
    probe = opened(gpus)
    assert seen(probe.memory(gpus[2].uuid)).taken == 0
    gpus[2].lost = True
    answer = probe.memory(gpus[2].uuid)
    assert isinstance(answer, Unobservable)
    assert answer.error == "NVML_ERROR_GPU_IS_LOST"
    assert "GPU is lost" in str(answer)
    assert seen(probe.memory(gpus[1].uuid)).taken == 0
    lost = [index for index, gpu in enumerate(probe.gpus()) if isinstance(gpu, Unobservable)]
    assert lost == [2]


def test_memory_v1_answers_where_v2_is_missing() -> None:
    gpu = h200s(1)[0]
    memory = seen(opened([gpu], memory_v2=False).memory(gpu.uuid))
    assert memory.reserved is None
    assert memory.used == memory.taken == gpu.reserved
    assert memory.free == seen(opened([gpu]).memory(gpu.uuid)).free


def test_ecc_that_is_off_has_no_count() -> None:
    gpu = h200s(1)[0]
    gpu.ecc_enabled = 0
    assert opened([gpu]).ecc(gpu.uuid) == Ecc(enabled=False, uncorrected=None)


def test_a_default_power_limit_may_be_missing_alone() -> None:
    gpu = h200s(1)[0]
    gpu.errors["nvmlDeviceGetPowerManagementDefaultLimit"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    limit = seen(opened([gpu]).power_limit(gpu.uuid))
    assert limit.enforced == 700
    assert isinstance(limit.default, Unobservable)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "library not found"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "driver not loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "no permission to talk to the driver"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "library and driver are of different versions"),
        (pynvml.NVML_ERROR_UNKNOWN, "Unknown Error"),
    ],
)
def test_no_nvml_says_why(number: int, reason: str) -> None:
    absent = open_nvml(FakePynvml([], absent=number))
    assert isinstance(absent, NoNvml)
    assert str(absent) == f"NVML: {reason}"


def test_no_binding_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() == NoNvml("nvidia-ml-py is not installed")


def test_an_unknown_uuid_is_unobservable() -> None:
    answer = opened(h200s(1)).memory("GPU-ffffffff")
    assert isinstance(answer, Unobservable)
    assert answer.error == "NVML_ERROR_NOT_FOUND"


def test_shutting_down_waits_for_readers_and_later_questions_are_unobservable() -> None:
    class Slow(FakePynvml):
        inside, go_on, torn = threading.Event(), threading.Event(), False

        def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
            self.inside.set()
            self.go_on.wait(30)
            Slow.torn = not self.initialised
            return gpu.power

    gpu = h200s(1)[0]
    module = Slow([gpu])
    probe = open_nvml(module)
    assert isinstance(probe, Nvml)
    reader = threading.Thread(target=probe.power, args=(gpu.uuid,))
    reader.start()
    assert module.inside.wait(30)
    closer = threading.Thread(target=probe.close)
    closer.start()
    module.go_on.set()
    reader.join()
    closer.join()
    assert not Slow.torn
    assert module.initialised == 0
    answer = probe.power(gpu.uuid)
    assert isinstance(answer, Unobservable)
    assert answer.error == "NVML_ERROR_UNINITIALIZED"
    probe.close()  # a second time does nothing
    assert module.initialised == 0
