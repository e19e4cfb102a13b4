"""Two made-up H200 under a server, as the memory checks see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from suites_world import World, deployment

from acceptance.gpus.health import BEFORE, Finding
from acceptance.gpus.held import Found
from acceptance.gpus.kv import GIB
from acceptance.gpus.telemetry import Rest, Span, Telemetry, rest_of
from fixtures.gpuwatch import GpuWatch

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.gpus.events import GpuEvent
    from acceptance.judging.judgement import Broken

A, B = "GPU-a", "GPU-b"
STRANGER = [1, 10 * GIB, "foreign", "pid 1 (python of somebody, 10.0 GiB)"]
TOTAL = 141 * GIB


@dataclass(frozen=True)
class NamedGpu:
    uuid: str
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass
class Gpus:
    """A GpuWatch of two GPUs, by what NVML told. free: GiB of each, second after second from 1 on;
    ready at 3, the first cell measured at 5 and the second at 6. strangers: by GPU, who else is
    there from second 4 on, as the sampler writes it."""

    free: list[tuple[float | None, float | None]] = field(
        default_factory=lambda: [(140, 140), (12, 12), (12, 12), (11, 11), (11, 11), (11, 11)]
    )
    events: list[tuple[float, GpuEvent]] = field(default_factory=list)
    reasons: list[int] = field(default_factory=lambda: [0, 0, 4, 4])
    uncorrected: list[int] = field(default_factory=lambda: [7, 7])
    registered: Any = ("xid", "ecc")
    before: dict[str, list[Finding]] = field(
        default_factory=lambda: {
            check: [
                Finding(check, gpu, True, "as it should be", "so") for gpu in ("GPU 0", "GPU 1")
            ]
            for check in BEFORE
        }
    )
    strangers: dict[str, list[Any]] = field(default_factory=dict)
    gpus: tuple[str, ...] = (A, B)
    cells: dict[str, float] = field(
        default_factory=lambda: {"prompt-heavy-b1": 5, "balanced-b1": 6}
    )
    began: float = 0
    ready: float = 3
    starting: Span = field(default_factory=lambda: Span(0, 3))
    serving: Span = field(default_factory=lambda: Span(3, 9))
    names: dict[str, str] = field(default_factory=lambda: {A: "GPU 0", B: "GPU 1"})
    name: str = ""  # of its host, which it is too

    @property
    def hosts(self) -> tuple[Any, ...]:
        return (self,)

    @property
    def found(self) -> Found:
        gpus: Any = tuple(NamedGpu(uuid, name) for uuid, name in self.names.items())
        return Found(gpus, self.before, {A: GIB, B: GIB}, self.began)

    def happened(self, span: Span) -> dict[str, list[Finding]]:
        """As the real one."""
        return GpuWatch.happened(cast("GpuWatch", self), span)

    def hardware(self) -> str:
        """As the real one."""
        return GpuWatch.hardware(cast("GpuWatch", self))

    def others(self, span: Span, *, certain: bool = False) -> str:
        """As the real one."""
        return GpuWatch.others(cast("GpuWatch", self), span, certain=certain)

    def shared(self, span: Span, *, certain: bool = False) -> tuple[Broken, ...]:
        """As the real one."""
        return GpuWatch.shared(cast("GpuWatch", self), span, certain=certain)

    def telemetry(self, *, partly: bool = False) -> Telemetry:
        told = {
            gpu: [
                self._rest(gpu, moment, reasons) for moment, reasons in enumerate(self.reasons, 1)
            ]
            for gpu in self.names
        }
        rows = [tuple(None if gib is None else int(gib * GIB) for gib in row) for row in self.free]
        return Telemetry(
            gpus=(A, B),
            total={A: TOTAL, B: TOTAL},
            registered=dict.fromkeys((A, B), self.registered),
            memory=[(float(moment), row) for moment, row in enumerate(rows, 1)],
            rest=told,
            events=self.events,
        )

    def _rest(self, gpu: str, moment: int, reasons: int) -> Rest:
        """As the sampler writes it."""
        return rest_of(
            {
                "t": moment,
                "clock_reasons": reasons,
                "ecc_uncorrected": self.uncorrected[min(moment, len(self.uncorrected)) - 1],
                "rows": [0, 0, False, False],
                "thermal_ns": 0,
                "processes": [
                    [4000, 128 * GIB, "ours", "pid 4000 (VLLM::Worker of me, 128.0 GiB)"],
                    *(self.strangers.get(gpu, []) if moment >= 4 else []),
                ],
                "unlisted": 0,
            }
        )


def gpu_world(run_dir: Path) -> World:
    """A deployment of several GPUs that needs 1 GiB of each left free."""
    return World(deployment("fp8-8xh200-tp-ep", memory={"headroom_floor_gib": 1.0}), run_dir)
