"""A stand-in for the pynvml module of nvidia-ml-py: its functions over GPUs made up by a test.

Constants and error classes are the real ones, so error numbers and names cannot be wrong. A
function that is not here raises AttributeError, as a typo would.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import pynvml

GIB = 1 << 30
MIB = 1 << 20


@dataclass
class FakeGpu:
    """Bytes, milliwatts, nanoseconds: NVML's units. errors: function name -> error number."""

    uuid: str
    name: str = "NVIDIA H200"
    total: int = 143_771 * MIB
    reserved: int = 615 * MIB
    taken: int = 0
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    mig: int = 0
    ecc_enabled: int = 1
    uncorrected: int = 0
    rows: tuple[int, int, int, int] = (0, 0, 0, 0)
    clock_reasons: int = 0x1
    violations: dict[int, int] = field(default_factory=dict)
    power: int = 76_500
    limit: int = 700_000
    default_limit: int | None = None  # None: the same
    width: int = 16
    links: dict[int, int] = field(default_factory=dict)
    no_peers: bool = False
    errors: dict[str, int] = field(default_factory=dict)
    lost: bool = False


def h200s(count: int = 8) -> list[FakeGpu]:
    return [
        FakeGpu(f"GPU-{index}aaaaaaa-0000-4000-8000-00000000000{index}") for index in range(count)
    ]


def b200s(count: int = 4) -> list[FakeGpu]:
    return [
        FakeGpu(
            f"GPU-{index}bbbbbbb-0000-4000-8000-00000000000{index}",
            name="NVIDIA B200",
            total=180 * GIB,
            reserved=GIB,
            limit=1_000_000,
        )
        for index in range(count)
    ]


class FakePynvml:
    """absent: the error number that nvmlInit answers. memory_v2: whether the driver knows it."""

    def __init__(
        self, gpus: list[FakeGpu], *, absent: int | None = None, memory_v2: bool = True
    ) -> None:
        self.gpus = gpus
        self.absent = absent
        self.memory_v2 = memory_v2
        self.initialised = 0
        self.registered: set[tuple[str, int]] = set()
        self.happened: list[SimpleNamespace] = []

    def happen(self, gpu: FakeGpu, code: int, kind: str = "nvmlEventTypeXidCriticalError") -> None:
        """An event, told only where it was registered for."""
        number = getattr(pynvml, kind)
        if (gpu.uuid, number) in self.registered:
            self.happened.append(SimpleNamespace(device=gpu, eventType=number, eventData=code))

    def __getattr__(self, name: str) -> Any:
        if (
            name.startswith(("NVML_", "NVMLError", "NVMLLibrary", "nvmlEventType"))
            or name == "nvmlMemory_v2"
        ):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in dir(pynvml) if name.startswith("NVML_"))]

    def _fail(self, number: int) -> NoReturn:
        raise pynvml.NVMLError(number)

    def _alive(self, gpu: FakeGpu, function: str) -> FakeGpu:
        if not self.initialised:
            self._fail(pynvml.NVML_ERROR_UNINITIALIZED)
        if gpu.lost:
            self._fail(pynvml.NVML_ERROR_GPU_IS_LOST)
        if function in gpu.errors:
            self._fail(gpu.errors[function])
        return gpu

    def nvmlInit(self) -> None:
        if self.absent is not None:
            self._fail(self.absent)
        self.initialised += 1

    def nvmlShutdown(self) -> None:
        self.initialised -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.159.04"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._alive(self.gpus[index], "nvmlDeviceGetHandleByIndex")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        found = [gpu for gpu in self.gpus if gpu.uuid == uuid]
        if not found:
            self._fail(pynvml.NVML_ERROR_NOT_FOUND)
        return self._alive(found[0], "nvmlDeviceGetHandleByUUID")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return self._alive(gpu, "nvmlDeviceGetUUID").uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return self._alive(gpu, "nvmlDeviceGetName").name

    def nvmlDeviceGetPciInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        self._alive(gpu, "nvmlDeviceGetPciInfo")
        return SimpleNamespace(busId=f"00000000:{self.gpus.index(gpu) + 1:02X}:00.0")

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> SimpleNamespace:
        self._alive(gpu, "nvmlDeviceGetMemoryInfo")
        free = gpu.total - gpu.reserved - gpu.taken
        if version is None:
            return SimpleNamespace(total=gpu.total, free=free, used=gpu.total - free)
        if not self.memory_v2:
            self._fail(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(
            total=gpu.total, free=free, used=gpu.taken, reserved=gpu.reserved, version=version
        )

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        self._alive(gpu, "nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.processes]

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        return [self._alive(gpu, "nvmlDeviceGetMigMode").mig, gpu.mig]

    def nvmlDeviceGetEccMode(self, gpu: FakeGpu) -> list[int]:
        return [self._alive(gpu, "nvmlDeviceGetEccMode").ecc_enabled, gpu.ecc_enabled]

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, error: int, counter: int) -> int:
        assert (error, counter) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, 0)
        if not gpu.ecc_enabled:
            self._fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self._alive(gpu, "nvmlDeviceGetTotalEccErrors").uncorrected

    def nvmlDeviceGetRemappedRows(self, gpu: FakeGpu) -> tuple[int, int, int, int]:
        return self._alive(gpu, "nvmlDeviceGetRemappedRows").rows

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: FakeGpu) -> int:
        return self._alive(gpu, "nvmlDeviceGetCurrentClocksEventReasons").clock_reasons

    def nvmlDeviceGetViolationStatus(self, gpu: FakeGpu, policy: int) -> SimpleNamespace:
        self._alive(gpu, "nvmlDeviceGetViolationStatus")
        if policy not in gpu.violations:
            self._fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(referenceTime=0, violationTime=gpu.violations[policy])

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        return self._alive(gpu, "nvmlDeviceGetPowerUsage").power

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        return self._alive(gpu, "nvmlDeviceGetEnforcedPowerLimit").limit

    def nvmlDeviceGetPowerManagementDefaultLimit(self, gpu: FakeGpu) -> int:
        self._alive(gpu, "nvmlDeviceGetPowerManagementDefaultLimit")
        return gpu.limit if gpu.default_limit is None else gpu.default_limit

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        self._alive(gpu, "nvmlDeviceGetTemperature")
        return 31

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> SimpleNamespace:
        self._alive(gpu, "nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=97, memory=60)

    def nvmlDeviceGetPersistenceMode(self, gpu: FakeGpu) -> int:
        self._alive(gpu, "nvmlDeviceGetPersistenceMode")
        return 1

    def nvmlDeviceGetVbiosVersion(self, gpu: FakeGpu) -> str:
        self._alive(gpu, "nvmlDeviceGetVbiosVersion")
        return "96.00.BC.00.01"

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:
        self._alive(gpu, "nvmlDeviceGetTotalEnergyConsumption")
        return 1_234_000

    def nvmlDeviceGetCurrPcieLinkWidth(self, gpu: FakeGpu) -> int:
        return self._alive(gpu, "nvmlDeviceGetCurrPcieLinkWidth").width

    def nvmlDeviceGetMaxPcieLinkWidth(self, gpu: FakeGpu) -> int:
        self._alive(gpu, "nvmlDeviceGetMaxPcieLinkWidth")
        return 16

    def nvmlDeviceGetNvLinkState(self, gpu: FakeGpu, link: int) -> int:
        self._alive(gpu, "nvmlDeviceGetNvLinkState")
        if link not in gpu.links:
            self._fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return gpu.links[link]

    def nvmlDeviceGetP2PStatus(self, gpu: FakeGpu, other: FakeGpu, index: int) -> int:
        assert index == pynvml.NVML_P2P_CAPS_INDEX_READ
        self._alive(gpu, "nvmlDeviceGetP2PStatus")
        no = pynvml.NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED
        return no if gpu.no_peers or other.no_peers else pynvml.NVML_P2P_STATUS_OK

    def nvmlEventSetCreate(self) -> list[int]:
        return []

    def nvmlEventSetFree(self, events: list[int]) -> None:
        self.registered.clear()

    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, kinds: int, events: list[int]) -> None:
        self._alive(gpu, "nvmlDeviceRegisterEvents")
        self.registered.add((gpu.uuid, kinds))

    def nvmlEventSetWait_v2(self, events: list[int], milliseconds: int) -> SimpleNamespace:
        if not self.happened:
            self._fail(pynvml.NVML_ERROR_TIMEOUT)
        return self.happened.pop(0)
