"""NVML as a Probe, through nvidia-ml-py."""

from __future__ import annotations

import importlib
from typing import Any

from acceptance.gpus.asking import error_name
from acceptance.gpus.inventory import kind_of
from acceptance.gpus.links import Links
from acceptance.gpus.probe import (
    ClockReasons,
    ComputeProcess,
    Ecc,
    Gpu,
    Memory,
    NoNvml,
    Observed,
    PowerLimit,
    RemappedRows,
    Unobservable,
    Utilisation,
    Violation,
)

_ABSENT = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "library not found",
    "NVML_ERROR_DRIVER_NOT_LOADED": "driver not loaded",
    "NVML_ERROR_NO_PERMISSION": "no permission to talk to the driver",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "library and driver are of different versions",
}
# What a driver without memory v2 was seen to answer; anything else is a fault and is told as one.
_NO_MEMORY_V2 = {
    "NVML_ERROR_FUNCTION_NOT_FOUND",
    "NVML_ERROR_NOT_SUPPORTED",
    "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
    "NVML_ERROR_INVALID_ARGUMENT",
}
_POLICY = {
    Violation.POWER: "NVML_PERF_POLICY_POWER",
    Violation.THERMAL: "NVML_PERF_POLICY_THERMAL",
    Violation.BOARD_LIMIT: "NVML_PERF_POLICY_BOARD_LIMIT",
    Violation.RELIABILITY: "NVML_PERF_POLICY_RELIABILITY",
}


def open_nvml(pynvml: Any = None) -> Nvml | NoNvml:
    """Initialises NVML. Never raises for a host without GPUs.

    pynvml: the module of nvidia-ml-py, or something with its functions; imported when not given.
    """
    if pynvml is None:
        try:
            pynvml = importlib.import_module("pynvml")
        except ImportError:
            return NoNvml("nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        name = error_name(pynvml, error)
        return NoNvml(_ABSENT.get(name, str(error)), name)
    return Nvml(pynvml)


class Nvml(Links):
    """A Probe that holds NVML initialised until close(). Safe to share between threads."""

    def gpus(self) -> tuple[Observed[Gpu], ...]:
        count = self._ask("the number of GPUs", self._nvml.nvmlDeviceGetCount)
        if isinstance(count, Unobservable):
            return (count,)
        return tuple(self._gpu(index) for index in range(count))

    def _gpu(self, index: int) -> Observed[Gpu]:
        def identity() -> tuple[str, str, str]:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            return (
                self._nvml.nvmlDeviceGetUUID(handle),
                self._nvml.nvmlDeviceGetName(handle),
                self._nvml.nvmlDeviceGetPciInfo(handle).busId,
            )

        told = self._ask(f"the identity of GPU {index}", identity)
        if isinstance(told, Unobservable):
            return told
        uuid, name, pci = told
        memory = self.memory(uuid)
        return Gpu(
            uuid=uuid,
            index=index,
            name=name,
            kind=kind_of(name),
            pci=pci,
            total_bytes=memory if isinstance(memory, Unobservable) else memory.total,
            driver=self.driver(),
            mig=self.mig(uuid),
        )

    def driver(self) -> Observed[str]:
        return self._ask("the driver version", lambda: str(self._nvml.nvmlSystemGetDriverVersion()))

    def memory(self, uuid: str) -> Observed[Memory]:
        def second(handle: Any) -> Memory:
            told = self._nvml.nvmlDeviceGetMemoryInfo(handle, version=self._nvml.nvmlMemory_v2)
            return Memory(told.total, told.free, told.used, told.reserved)

        def first(handle: Any) -> Memory:
            told = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            return Memory(told.total, told.free, told.used, None)

        memory = self._of("memory", uuid, second)
        if isinstance(memory, Unobservable) and memory.error in _NO_MEMORY_V2:
            return self._of("memory", uuid, first)
        return memory

    def processes(self, uuid: str) -> Observed[tuple[ComputeProcess, ...]]:
        def running(handle: Any) -> tuple[ComputeProcess, ...]:
            told = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            return tuple(ComputeProcess(each.pid, each.usedGpuMemory) for each in told)

        return self._of("running processes", uuid, running)

    def ecc(self, uuid: str) -> Observed[Ecc]:
        def volatile(handle: Any) -> Ecc:
            current, _pending = self._nvml.nvmlDeviceGetEccMode(handle)
            if current != self._nvml.NVML_FEATURE_ENABLED:
                return Ecc(enabled=False, uncorrected=None)
            count = self._nvml.nvmlDeviceGetTotalEccErrors(
                handle,
                self._nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                self._nvml.NVML_VOLATILE_ECC,
            )
            return Ecc(enabled=True, uncorrected=count)

        return self._of("ECC errors", uuid, volatile)

    def remapped_rows(self, uuid: str) -> Observed[RemappedRows]:
        def rows(handle: Any) -> RemappedRows:
            corrected, uncorrected, pending, failed = self._nvml.nvmlDeviceGetRemappedRows(handle)
            return RemappedRows(corrected, uncorrected, bool(pending), bool(failed))

        return self._of("remapped rows", uuid, rows)

    def clock_reasons(self, uuid: str) -> Observed[ClockReasons]:
        ask = self._nvml.nvmlDeviceGetCurrentClocksEventReasons
        return self._of("clock event reasons", uuid, lambda handle: ClockReasons(ask(handle)))

    def violation_ns(self, uuid: str, violation: Violation) -> Observed[int]:
        policy = getattr(self._nvml, _POLICY[violation])
        return self._of(
            f"time under {violation} violation",
            uuid,
            lambda handle: int(
                self._nvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime
            ),
        )

    def power(self, uuid: str) -> Observed[float]:
        ask = self._nvml.nvmlDeviceGetPowerUsage  # milliwatts, as are the limits
        return self._of("power", uuid, lambda handle: ask(handle) / 1000)

    def power_limit(self, uuid: str) -> Observed[PowerLimit]:
        enforced = self._of(
            "enforced power limit",
            uuid,
            lambda handle: float(self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
        )
        if isinstance(enforced, Unobservable):
            return enforced
        default = self._of(
            "default power limit",
            uuid,
            lambda handle: float(
                self._nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000
            ),
        )
        return PowerLimit(enforced, default)

    def energy(self, uuid: str) -> Observed[float]:
        ask = self._nvml.nvmlDeviceGetTotalEnergyConsumption  # millijoules
        return self._of("energy", uuid, lambda handle: ask(handle) / 1000)

    def temperature(self, uuid: str) -> Observed[int]:
        ask, sensor = self._nvml.nvmlDeviceGetTemperature, self._nvml.NVML_TEMPERATURE_GPU
        return self._of("temperature", uuid, lambda handle: int(ask(handle, sensor)))

    def utilisation(self, uuid: str) -> Observed[Utilisation]:
        def rates(handle: Any) -> Utilisation:
            told = self._nvml.nvmlDeviceGetUtilizationRates(handle)
            return Utilisation(told.gpu, told.memory)

        return self._of("utilisation", uuid, rates)

    def mig(self, uuid: str) -> Observed[bool]:
        ask, enabled = self._nvml.nvmlDeviceGetMigMode, self._nvml.NVML_DEVICE_MIG_ENABLE
        return self._of("MIG mode", uuid, lambda handle: bool(ask(handle)[0] == enabled))

    def persistence(self, uuid: str) -> Observed[bool]:
        ask, enabled = self._nvml.nvmlDeviceGetPersistenceMode, self._nvml.NVML_FEATURE_ENABLED
        return self._of("persistence mode", uuid, lambda handle: bool(ask(handle) == enabled))

    def vbios(self, uuid: str) -> Observed[str]:
        ask = self._nvml.nvmlDeviceGetVbiosVersion
        return self._of("VBIOS version", uuid, lambda handle: str(ask(handle)))
