"""How a backend that was asked for is called in vLLM's log.

Read in vLLM 0.32.0: model_executor/layers/fused_moe/oracle/{fp8,nvfp4}.py for experts' kernels,
distributed/device_communicators for all-to-all; names of older versions where they differ.
"""

from __future__ import annotations

# What vLLM resolves each word to. A batched variant is the same kernel for a dispatch that hands
# over tokens in batches per expert (DeepEP low latency).
MOE_KERNELS = {
    "flashinfer_trtllm": ("FLASHINFER_TRTLLM",),
    "flashinfer_cutlass": ("FLASHINFER_CUTLASS",),
    "flashinfer_cutedsl": ("FLASHINFER_CUTEDSL", "FLASHINFER_CUTEDSL_BATCHED"),
    "cutlass": ("VLLM_CUTLASS", "BATCHED_VLLM_CUTLASS"),
    "deep_gemm": ("DEEPGEMM", "BATCHED_DEEPGEMM"),
    "triton": ("TRITON", "BATCHED_TRITON"),
    "marlin": ("MARLIN",),
}

# On GPUs the log names the class, on CPU the word itself.
ALL2ALL_MANAGERS = {
    "allgather_reducescatter": ("AgRsAll2AllManager",),
    "deepep_high_throughput": ("DeepEPHTAll2AllManager",),
    "deepep_low_latency": ("DeepEPLLAll2AllManager",),
    "deepep_v2": ("DeepEPV2All2AllManager",),
    "flashinfer_all2allv": ("FlashInferNVLinkTwoSidedManager", "FlashInferAllToAllManager"),
    "flashinfer_nvlink_two_sided": ("FlashInferNVLinkTwoSidedManager",),
    "flashinfer_nvlink_one_sided": ("FlashInferNVLinkOneSidedManager",),
    "nixl_ep": ("NixlEPAll2AllManager",),
    "moonep": ("MoonEPAll2AllManager",),
    "naive": ("NaiveAll2AllManager",),
    "pplx": ("PPLXAll2AllManager",),
}


def is_moe_kernel(asked: str, logged: str) -> bool:
    """Whether the log names kernels that the word asks for. flashinfer: whichever of FlashInfer's
    the version takes for it."""
    if asked == "flashinfer":
        return logged.startswith("FLASHINFER_")
    return logged in MOE_KERNELS.get(asked, (asked.upper(),))


def is_all2all(asked: str, logged: str) -> bool:
    """Whether the log names the all-to-all that the word asks for."""
    return logged == asked or logged in ALL2ALL_MANAGERS.get(asked, ())
