"""What one GPU can do at most: memory, bandwidth, dense arithmetic. Vendors' own figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """memory: bytes. bandwidth: of the memory, bytes/s. flops: dense, by precision."""

    memory: float
    bandwidth: float
    flops: dict[str, float]
    source: str


SPECS = "SemiAnalysisAI/InferenceX-app packages/app/src/lib/gpu-specs.ts @ 77ca49a6"
# SXM modules. A kind that is missing here has no bounds.
GPUS = {
    "H100": Gpu(
        memory=80e9,
        bandwidth=3.35e12,
        flops={"bf16": 989e12, "fp8": 1979e12},
        source="NVIDIA H100 datasheet, SXM",
    ),
    "H200": Gpu(
        memory=141e9,
        bandwidth=4.8e12,
        flops={"bf16": 989e12, "fp8": 1979e12},
        source=SPECS,
    ),
    "B200": Gpu(
        memory=180e9,
        bandwidth=8e12,
        flops={"bf16": 2250e12, "fp8": 4500e12, "fp4": 9000e12},
        source=SPECS,
    ),
}
