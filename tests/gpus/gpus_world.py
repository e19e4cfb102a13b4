"""Made-up GPUs under the sampler, with a clock that a test turns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpus_fake_nvml import FakeGpu, FakePynvml

from acceptance.gpus.events import Events
from acceptance.gpus.nvml import Nvml, open_nvml
from acceptance.gpus.sampling import Sampling
from acceptance.gpus.tail import read_telemetry
from acceptance.gpus.whose import Owner

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.gpus.telemetry import Telemetry


@dataclass
class World:
    """now: seconds. tick() samples memory and events, and everything else."""

    gpus: list[FakeGpu]
    path: Path
    now: float = 1000.0
    module: FakePynvml = field(init=False)
    probe: Nvml = field(init=False)
    sampling: Sampling = field(init=False)

    def __post_init__(self) -> None:
        self.module = FakePynvml(self.gpus)
        probe = open_nvml(self.module)
        assert isinstance(probe, Nvml)
        self.probe = probe
        uuids = [gpu.uuid for gpu in self.gpus]
        file = self.path.open("a", encoding="utf-8", buffering=1)
        events, owner = Events(probe, uuids), Owner(os.getpid())
        self.sampling = Sampling(probe, events, uuids, file, owner, lambda: self.now)
        self.sampling.begin()

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.sampling.memory()
        self.sampling.events()
        self.sampling.rest()

    def read(self) -> Telemetry:
        return read_telemetry(self.path)

    @property
    def names(self) -> dict[str, str]:
        return {gpu.uuid: f"GPU {index}" for index, gpu in enumerate(self.gpus)}
