"""GPUs of a host from before a server starts until after it has ended: leased, examined, sampled.

Those of this host are Held. Those of another look the same from here (HostGpus): its agent holds
them there, as this does.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from acceptance.errors import InputError
from acceptance.gpus.health import examine, returned
from acceptance.gpus.inventory import Inventory, lacks, take_inventory
from acceptance.gpus.lease import Lease, lease
from acceptance.gpus.monitor import Monitor
from acceptance.gpus.nvml import open_nvml
from acceptance.gpus.probe import NoNvml, Observed, Unobservable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from acceptance.gpus.health import Finding
    from acceptance.gpus.probe import Gpu, Probe
    from acceptance.gpus.telemetry import Telemetry

Returned: TypeAlias = dict[str, Observed[tuple[float, int]]]
FOR_OTHERS = 60.0  # seconds to wait for GPUs that another run leases


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one host. count: GPUs of this kind. run_dir: of the run, told to whoever
    finds them leased. driver_floor: see examine."""

    kind: str | None
    count: int
    run_dir: str
    driver_floor: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The leased GPUs, and how they were with nothing started on them. before: findings by check.
    taken: UUID -> bytes, of those that tell. began: before the first sample, seconds since the
    epoch by the driver's clock."""

    gpus: tuple[Gpu, ...]
    before: dict[str, list[Finding]]
    taken: dict[str, int]
    began: float


class HostGpus(Protocol):
    """Leased GPUs of one host, sampled for as long as they are. name: of the host, for people;
    empty for this one."""

    @property
    def name(self) -> str: ...

    @property
    def found(self) -> Found: ...

    def telemetry(self, *, partly: bool = False) -> Telemetry:
        """What has been seen so far. partly: also where sampling has broken off. Raises
        ObservationError then without it."""

    def returned(self, timeout: float, slack: int) -> Returned:
        """Waits for the memory to be back at `taken`; see returned in health.py."""


class Held:
    """This host's."""

    name = ""

    def __init__(self, lease: Lease, found: Found, probe: Probe, monitor: Monitor) -> None:
        self.lease, self.found, self.monitor = lease, found, monitor
        self._probe = probe

    def telemetry(self, *, partly: bool = False) -> Telemetry:
        return self.monitor.read(partly=partly)

    def returned(self, timeout: float, slack: int) -> Returned:
        return returned(self._probe, self.found.taken, timeout=timeout, slack=slack)


@contextmanager
def hold(
    wanted: Wanted,
    path: Path,
    mark: str,
    inventory: Inventory | None = None,
    ahead: float = 0.0,
) -> Iterator[Held]:
    """Leases, examines and samples GPUs of this host while the block runs. path: of the telemetry.
    mark, ahead: see Monitor. inventory: what may be taken; all that CUDA_VISIBLE_DEVICES leaves
    without one. Raises AcceptanceError; nothing is held then."""
    nvml = open_nvml()
    if isinstance(nvml, NoNvml):
        raise InputError(f"GPUs cannot be leased: {nvml}")
    with nvml as probe:
        inventory = inventory or take_inventory(probe, os.environ)
        if lacking := lacks(wanted.kind, wanted.count, inventory):
            raise InputError(lacking)
        pool = [gpu for gpu in inventory.gpus if wanted.kind in (None, gpu.kind)]
        run_dir, count = wanted.run_dir, wanted.count
        with lease(pool, probe, count=count, run_dir=run_dir, timeout=FOR_OTHERS) as mine:
            before = examine(probe, mine.gpus, wanted.driver_floor)
            memory = {gpu.uuid: probe.memory(gpu.uuid) for gpu in mine.gpus}
            taken = {u: m.taken for u, m in memory.items() if not isinstance(m, Unobservable)}
            # No event falls before it.
            found = Found(mine.gpus, before, taken, began=time.time() - ahead)
            with Monitor(mine.uuids, path, mark, ahead) as monitor:
                yield Held(mine, found, probe, monitor)
