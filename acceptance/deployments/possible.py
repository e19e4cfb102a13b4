"""Deployments that cannot work, told before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from acceptance.deployments.recipe import intents, release, translate
from acceptance.deployments.schema import Lane, Precision, Profile
from acceptance.errors import InputError

if TYPE_CHECKING:
    from acceptance.deployments.layout import Layout
    from acceptance.deployments.schema import Deployment

MLA_ON_CPU = Version("0.28")  # vllm/platforms/cpu.py of 0.27 refuses MLA
ATTENTION_HEADS = 128  # of DeepSeek-V3 and R1


@dataclass(frozen=True)
class CacheRule:
    """What an attention backend stores: fp8 "never" or "only", up to, not including, a version.
    Read in each backend's supported_kv_cache_dtypes, vLLM 0.12 to 0.33."""

    backend: str
    fp8: str
    until: str = "0.34"


CACHE_RULES = (
    CacheRule("FLASH_ATTN_MLA", "never"),
    CacheRule("TRITON_MLA", "never", until="0.18"),
    CacheRule("TOKENSPEED_MLA", "only"),
)


def why_impossible(deployment: Deployment, version: Version) -> list[str]:
    """Reasons why this vLLM cannot serve the deployment as declared; empty when it may.

    A simulated deployment is told of hardware that nobody has, so only its layout counts.
    """
    reasons = _layout(deployment)
    if deployment.lane is Lane.SIMULATED:
        return reasons
    reasons += _hardware(deployment, version)
    try:
        translate(deployment, Profile.SERVING, version)
    except InputError as error:
        happened = error.happened.removeprefix(f"{deployment.name}: ")
        return [*reasons, f"{happened} ({error.hint})" if error.hint else happened]
    return reasons + _cache(deployment, version)


def _layout(deployment: Deployment) -> list[str]:
    layout, gpus = deployment.layout, deployment.gpus
    reasons = []
    if deployment.lane is Lane.REHEARSAL:
        if gpus.count:
            reasons.append(f"the rehearsal runs on CPU, and it asks for {gpus.count} {gpus.kind}")
        if layout.nodes > 1 and layout.data == 1:
            reasons.append(
                "on CPU only data parallelism works over nodes: with tensor or pipeline "
                "parallelism vLLM's workers end at the first request"
            )
    elif not gpus.count:
        reasons.append(f"the {deployment.lane} lane needs GPUs, and gpus.count is 0")
    elif layout.ranks != gpus.count:
        reasons.append(
            f"layout {layout.label} has {_product(layout)}, and gpus.count is {gpus.count}; they "
            "must be equal"
            + (f": gpus.count is of all {layout.nodes} nodes" if layout.nodes > 1 else "")
        )
    return reasons


def _product(layout: Layout) -> str:
    sizes = {"tensor": layout.tensor, "pipeline": layout.pipeline, "data": layout.data}
    if layout.pipeline == 1:
        del sizes["pipeline"]
    product = " x ".join(map(str, sizes.values()))
    return f"{product} = {layout.ranks} ranks ({' x '.join(sizes)})"


def _hardware(deployment: Deployment, version: Version) -> list[str]:
    architecture, tensor = deployment.gpus.architecture, deployment.layout.tensor
    reasons = []
    if deployment.lane is Lane.FULL:
        if deployment.precision is Precision.FP4 and architecture == "hopper":
            reasons.append(
                f"FP4 needs Blackwell (B200): {deployment.gpus.kind} has no FP4 arithmetic, and "
                "Marlin's weight-only kernels are not what the recipe accepts; the slice lane "
                "may use them"
            )
        if ATTENTION_HEADS % tensor:
            reasons.append(
                f"{ATTENTION_HEADS} attention heads cannot be split over layout.tensor = {tensor}"
            )
    if deployment.lane is Lane.REHEARSAL and release(version) < MLA_ON_CPU:
        reasons.append(
            f"vLLM {version} has no multi-head latent attention on CPU; it came with {MLA_ON_CPU}"
        )
    return reasons


def _cache(deployment: Deployment, version: Version) -> list[str]:
    wanted = intents(deployment, Profile.SERVING)
    backend, dtype = wanted.get("attention_backend"), wanted.get("kv_cache_dtype", "auto")
    is_fp8 = dtype.startswith("fp8")
    return [
        f"attention_backend = {backend} {rule.fp8} stores an FP8 cache in vLLM {version}, and "
        f"kv_cache_dtype is {dtype}"
        for rule in CACHE_RULES
        if rule.backend == backend
        and release(version) < Version(rule.until)
        and is_fp8 is (rule.fp8 == "never")
    ]
