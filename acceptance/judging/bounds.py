"""Physical bounds of one cell on one deployment, as limits that no measurement can cross."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane, Precision
from acceptance.judging.architecture import BF16, DEEPSEEK_V3, WEIGHTS
from acceptance.judging.hardware import GPUS
from acceptance.judging.judgement import Kind, Limit
from acceptance.judging.roofline import UTILISATION, Roofline
from acceptance.slice.config import LAYERS as SLICE_LAYERS

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment

TPOT = ("tpot_mean_ms", "tpot_median_ms")
TTFT = ("ttft_mean_ms",)
NO_INSTRUMENT = (Lane.REHEARSAL,)  # another model on a CPU


def roofline_of(deployment: Deployment, *, layers: int | None = None) -> Roofline | None:
    """The roofline of a deployment; None where there is none: on a CPU, on hardware that is not
    known, with pipeline parallelism (its stages work on other batches at once, which is not
    modelled), or for a slice whose number of layers is neither given nor the suite's own, which is
    so for tiny trained weights too.

    A slice has dummy weights, whose router need not spread tokens: its bounds count the fewest
    experts that a step can read. A simulated server's clock is only ever stretched, so it keeps
    the bounds of what it imitates.
    """
    gpu = GPUS.get(deployment.gpus.kind or "")
    if deployment.lane in NO_INSTRUMENT or gpu is None or deployment.layout.pipeline > 1:
        return None
    sliced = deployment.lane is Lane.SLICE
    if sliced and layers is None:
        if not (deployment.model_is_generated and deployment.dummy_weights):
            return None
        layers = SLICE_LAYERS
    precision = deployment.precision.value
    model = DEEPSEEK_V3 if layers is None else DEEPSEEK_V3.with_layers(layers)
    return Roofline(
        model=model,
        weights=WEIGHTS[precision],
        gpu=gpu,
        tensor=deployment.layout.tensor,
        data=deployment.layout.data,
        kv_bytes=_kv_bytes(deployment),
        # Where the GPU has no such arithmetic, weights are unpacked into another: the fastest.
        flops=precision if precision in gpu.flops else max(gpu.flops, key=lambda k: gpu.flops[k]),
        uniform=not sliced,
    )


def fits(deployment: Deployment, roofline: Roofline, batch: int, tokens: int) -> bool:
    """Whether `batch` requests of `tokens` each run at once: in the KV cache by estimate, and
    within max_num_seqs of each engine. Where not, requests queue and fewer run. A simulated cache
    is scaled as its requests are."""
    options = deployment.options
    held = roofline.kv_tokens(options.gpu_memory_utilization or UTILISATION)
    if deployment.lane is Lane.SIMULATED:
        held *= deployment.scale.length
    seats = options.max_num_seqs or batch
    return batch * tokens <= held and -(-batch // deployment.layout.data) <= seats


def bounds_for(
    deployment: Deployment,
    workload: str,
    batch: int,
    isl: int,
    osl: int,
    *,
    layers: int | None = None,
) -> dict[str, Limit]:
    """Bounds by metric: TPOT where the whole batch runs at once, TTFT of the burst always. Empty
    where physics says nothing (roofline_of). batch: requests; isl, osl: tokens of each, as asked.
    layers: of the served model, where it is not whole.

    The TPOT bound counts steps of the whole batch; a burst ramps up and drains with smaller ones,
    and real text may crowd onto fewer experts. Both cost far less than what separates any server
    from the bound: no public measurement lies within 1.6 times of it.
    """
    roofline = roofline_of(deployment, layers=layers)
    if roofline is None or min(batch, isl, osl) < 1:
        return {}
    ttft, tpot = roofline.mean_ttft_ms(batch, isl), roofline.tpot_ms(batch, isl + osl / 2)
    cell = f"{workload} {isl}/{osl} x {batch}"
    how = f"{deployment.layout.label} on {deployment.hardware}"
    limits = dict.fromkeys(TTFT, _bound(ttft, f"arithmetic of prefill, {cell}, {how}", roofline))
    if fits(deployment, roofline, batch, isl + osl):
        why = f"memory bandwidth of decoding, {cell}, {how}"
        limits |= dict.fromkeys(TPOT, _bound(tpot, why, roofline))
    return limits


def fraction_of_bound(value: object, bound: Limit) -> float | None:
    """How near a value came to its bound: 1 at the bound, 0.25 when it took four times as long,
    above 1 when it is not possible. None for what is no positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    if bound.lower is not None and bound.lower > 0:
        return bound.lower / value
    return value / bound.upper if bound.upper else None


def _bound(lower: float, why: str, roofline: Roofline) -> Limit:
    source = f"roofline: {why}; {roofline.gpu.source}"
    return Limit(kind=Kind.BOUND, lower=lower, unit="ms", source=source)


def _kv_bytes(deployment: Deployment) -> float:
    """Of a value in the KV cache. Left to vLLM: what the checkpoint says, FP8 for NVFP4."""
    told = deployment.options.kv_cache_dtype
    if told in (None, "auto"):
        return 1.0 if deployment.precision is Precision.FP4 else BF16
    return 1.0 if str(told).startswith("fp8") else BF16
