"""What can be asked of the GPUs of a host, and how an answer that cannot be had is told.

Every answer is a value or Unobservable. Nothing stands in for a missing answer: "Not Supported" is
neither zero nor healthy. Bytes are bytes, power is watts, temperature is degrees Celsius.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Protocol, TypeAlias, TypeVar

from acceptance.errors import ObservationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unobservable:
    """An answer that could not be had.

    reason: for a person, names what was asked. error: NVML's own name, `NVML_ERROR_NOT_SUPPORTED`,
    empty where NVML was not what failed. It has no truth value, so that `if probe.mig(gpu):` cannot
    take it for a yes.
    """

    reason: str
    error: str = ""

    def __bool__(self) -> bool:
        raise TypeError(f"neither true nor false, because unobservable: {self}")

    def __str__(self) -> str:
        return f"{self.reason} ({self.error})" if self.error else self.reason


Observed: TypeAlias = T | Unobservable


def seen(observed: Observed[T]) -> T:
    """The value, for a caller that cannot go on without it. Raises ObservationError."""
    if isinstance(observed, Unobservable):
        raise ObservationError(f"Cannot be observed: {observed}")
    return observed


@dataclass(frozen=True, slots=True)
class NoNvml:
    """Why this host has no NVML to ask. reason: short, without "NVML". error: NVML's name of it."""

    reason: str
    error: str = ""

    def __str__(self) -> str:
        return f"NVML: {self.reason}"


@dataclass(frozen=True, slots=True)
class Gpu:
    """Who a GPU is. index: NVML's, in PCI bus order, nvidia-smi's too. kind: "H200", "B200"."""

    uuid: str
    index: int
    name: str
    kind: str
    pci: str
    total_bytes: Observed[int]
    driver: Observed[str]
    mig: Observed[bool]

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name}, {self.uuid})"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one GPU. reserved: held by the driver; None where only NVML's memory v1 answers.

    `used` has two meanings: v1 counts the driver's reserve, v2 does not (one idle H200: 615 MiB and
    0). Judge by `free`, which means the same in both, and by how `taken` grows.
    """

    total: int
    free: int
    used: int
    reserved: int | None

    @property
    def taken(self) -> int:
        """Bytes that are neither free nor known to be the driver's reserve."""
        return self.total - self.free - (self.reserved or 0)


@dataclass(frozen=True, slots=True)
class ComputeProcess:
    """A process with a compute context. pid: the host's, also when asked inside a container.
    used_bytes: None where the driver does not tell."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Ecc:
    """uncorrected: volatile errors since the driver was loaded; None while ECC is off."""

    enabled: bool
    uncorrected: int | None


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Rows replaced after correctable and uncorrectable errors. pending: a reset is needed to apply
    a remapping. failed: one could not be applied."""

    correctable: int
    uncorrectable: int
    pending: bool
    failed: bool


class ClockReasons(IntFlag):
    """Why clocks are below their maximum now (nvml.h, nvmlClocksEventReasons)."""

    IDLE = 0x1
    APPLICATION = 0x2
    SW_POWER_CAP = 0x4
    HW_SLOWDOWN = 0x8
    SYNC_BOOST = 0x10
    SW_THERMAL = 0x20
    HW_THERMAL = 0x40
    HW_POWER_BRAKE = 0x80
    DISPLAY = 0x100
    BOARD_LIMIT = 0x200
    RELIABILITY = 0x400

    @property
    def names(self) -> tuple[str, ...]:
        """`("sw_power_cap", "hw_thermal")`, and bits that a newer driver has, in hexadecimal."""
        unknown = int(self) & ~sum(ClockReasons)
        known = tuple(str(each.name).lower() for each in ClockReasons if each in self)
        return (*known, hex(unknown)) if unknown else known

    @property
    def throttled(self) -> ClockReasons:
        """The part that is a fault of host or cooling. The software power cap is none: at full load
        it is normal."""
        faults = self.HW_SLOWDOWN | self.SW_THERMAL | self.HW_THERMAL | self.HW_POWER_BRAKE
        return self & faults


class Violation(StrEnum):
    """What may hold the clocks down; NVML counts the time of each."""

    POWER = "power"
    THERMAL = "thermal"
    BOARD_LIMIT = "board_limit"
    RELIABILITY = "reliability"


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """Watts. enforced: the lowest of all limits in force. default: the board's."""

    enforced: float
    default: Observed[float]


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Share of the last sample period with a kernel running, and with memory being read or written;
    percent."""

    gpu: int
    memory: int


@dataclass(frozen=True, slots=True)
class Pcie:
    """Lanes in use now, and at most."""

    width: int
    max_width: int


@dataclass(frozen=True, slots=True)
class NvLinks:
    """Links of a GPU that are up, and those that are there and down, by number."""

    up: tuple[int, ...]
    down: tuple[int, ...]


class Probe(Protocol):
    """Asks the GPUs of this host. uuid: a whole `GPU-...` UUID. No method raises for a GPU that is
    lost or for a question the driver does not answer; both are Unobservable."""

    def gpus(self) -> tuple[Observed[Gpu], ...]:
        """All GPUs of the host by index, whatever CUDA_VISIBLE_DEVICES says."""

    def driver(self) -> Observed[str]: ...
    def memory(self, uuid: str) -> Observed[Memory]: ...
    def processes(self, uuid: str) -> Observed[tuple[ComputeProcess, ...]]: ...
    def ecc(self, uuid: str) -> Observed[Ecc]: ...
    def remapped_rows(self, uuid: str) -> Observed[RemappedRows]: ...
    def clock_reasons(self, uuid: str) -> Observed[ClockReasons]: ...

    def violation_ns(self, uuid: str, violation: Violation) -> Observed[int]:
        """Nanoseconds, counted since the driver was loaded; only differences tell something."""

    def power(self, uuid: str) -> Observed[float]: ...
    def power_limit(self, uuid: str) -> Observed[PowerLimit]: ...

    def energy(self, uuid: str) -> Observed[float]:
        """Joules, counted since the driver was loaded."""

    def pcie(self, uuid: str) -> Observed[Pcie]: ...
    def nvlinks(self, uuid: str) -> Observed[NvLinks]: ...

    def p2p(self, uuid: str, other: str) -> Observed[bool]:
        """Whether one GPU can read the other's memory."""

    def temperature(self, uuid: str) -> Observed[int]: ...
    def utilisation(self, uuid: str) -> Observed[Utilisation]: ...
    def mig(self, uuid: str) -> Observed[bool]: ...
    def persistence(self, uuid: str) -> Observed[bool]: ...
    def vbios(self, uuid: str) -> Observed[str]: ...
