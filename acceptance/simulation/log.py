"""What the simulated server logs, in the form and words of vLLM 0.32 on GPUs."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from acceptance.simulation.latency import GIB, constants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.simulation.flags import Settings

SHARDS = 163
READY = "INFO:     Application startup complete."
MOE = {"fp8": ("DEEPGEMM", "Fp8"), "fp4": ("FLASHINFER_TRTLLM", "NvFp4")}
NAMES = {"deep_gemm": "DEEPGEMM", "cutlass": "VLLM_CUTLASS"}
ALL2ALL = {
    "allgather_reducescatter": "AgRsAll2AllManager",
    "deepep_high_throughput": "DeepEPHTAll2AllManager",
    "deepep_low_latency": "DeepEPLLAll2AllManager",
}


def say(process: str, source: str, text: str, level: str = "INFO") -> str:
    """One record of the log."""
    now = time.strftime("%m-%d %H:%M:%S")
    return f"({process} pid={os.getpid()}) {level} {now} [{source}] {text}"


def write(line: str) -> None:
    """Puts a line out at once: somebody waits for it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def engine_name(settings: Settings, engine: int) -> str:
    return f"EngineCore_DP{engine}" if settings.machine.data > 1 else "EngineCore"


def worker_name(settings: Settings, engine: int) -> str:
    """The first worker of an engine."""
    if settings.machine.data > 1:
        return f"Worker_DP{engine}_EP{engine * settings.machine.tensor}"
    return "Worker_TP0_EP0"


def jit_line(settings: Settings, engine: int) -> str:
    return say(
        worker_name(settings, engine),
        "jit_monitor.py:140",
        "Triton kernel JIT compilation during inference: _fwd_grouped_kernel_stage1. This causes a "
        "latency spike; consider extending warmup to cover this shape/config.",
        "WARNING",
    )


def startup(settings: Settings, version: str, kv_tokens: int, unknown: list[str]) -> Iterator[str]:
    """The lines of a start, in order. kv_tokens: of one engine."""
    yield say("APIServer", "api_utils.py:286", "SIMULATED SERVER: no GPU, no weights, no proof")
    for name in unknown:
        text = f"Unknown vLLM environment variable detected: {name}"
        yield say("APIServer", "interface.py:1457", text, "WARNING")
    yield say("APIServer", "model.py:733", "Resolved architecture: DeepseekV3ForCausalLM")
    for engine in range(settings.machine.data):
        yield from _engine(settings, version, kv_tokens, engine)
    address = f"http://{settings.host}:{settings.port}"
    yield say("APIServer", "entry.py:140", f"Starting vLLM server on {address}")
    yield f"INFO:     Started server process [{os.getpid()}]"
    yield "INFO:     Waiting for application startup."


def _engine(settings: Settings, version: str, kv_tokens: int, engine: int) -> Iterator[str]:
    machine, data, me = settings.machine, constants(), engine_name(settings, engine)
    worker, server = worker_name(settings, engine), data["server"]
    weights = machine.weight_bytes() / GIB
    loading = machine.weight_bytes() / server["load_rate"]
    yield say(me, "core.py:133", _config(settings, version))
    yield from _group(settings, worker)
    yield say(worker, "gpu_model_runner.py:5040", f"Starting to load model {settings.model}...")
    yield from _kernels(settings, engine)
    yield (
        f"Loading safetensors checkpoint shards: 100% Completed | {SHARDS}/{SHARDS} "
        f"[{int(loading) // 60:02d}:{int(loading) % 60:02d}<00:00,  2.04it/s]"
    )
    yield say(worker, "default_loader.py:501", f"Loading weights took {loading:.2f} seconds")
    text = f"Model loading took {weights:.2f} GiB memory and {loading + 3.3:.6f} seconds"
    yield say(worker, "gpu_model_runner.py:5149", text)
    if not settings.eager:
        text = f"Dynamo bytecode transform time: {9.12:.2f} s"
        yield say(worker, "backends.py:1166", text)
        yield say(worker, "monitor.py:62", "torch.compile took 40.02 s in total")
    yield say(worker, "monitor.py:91", "Initial profiling/warmup run took 3.90 s")
    text = f"Available KV cache memory: {machine.kv_gib(settings.length_scale):.2f} GiB"
    yield say(worker, "gpu_worker.py:759", text)
    length = settings.max_model_len
    text = (
        f"GPU KV cache size: {kv_tokens:,} tokens, Maximum concurrency for {length:,} tokens per "
        f"request: {kv_tokens / length:.2f}x"
    )
    yield say(me, "kv_cache_utils.py:2327", text)
    yield say(worker, "kernel_warmup.py:176", "JIT kernel warmup starting.")
    if not settings.eager:
        graphs = server["graphs_gib"]
        text = f"Graph capturing finished in 17 secs, took {graphs:.2f} GiB"
        yield say(worker, "gpu_model_runner.py:6581", text)
        text = f"CUDA graph pool memory: {graphs:.2f} GiB (actual), {graphs:.2f} GiB (estimated)"
        yield say(worker, "gpu_worker.py:971", text)
    yield say(worker, "gpu_worker.py:1034", _memory(settings, weights))
    text = f"init engine (profile, create kv cache, warmup model) took {loading + 60:.2f} s"
    yield say(me, "core.py:402", text)


def _group(settings: Settings, worker: str) -> Iterator[str]:
    """How a rank finds the others."""
    ranks = settings.machine.ranks
    text = f"world_size={ranks} rank=0 local_rank=0 distributed_init_method=tcp://x backend=nccl"
    yield say(worker, "parallel_state.py:1906", text)
    peers = ranks - 1
    yield (
        f"[Gloo] Rank 0 is connected to {peers} peer ranks. "
        f"Expected number of connected peer ranks is : {peers}"
    )
    yield say(worker, "pynccl.py:113", "vLLM is using nccl==2.28.9")


def _kernels(settings: Settings, engine: int) -> Iterator[str]:
    machine, worker = settings.machine, worker_name(settings, engine)
    attention = settings.attention_backend or constants()["gpu"][machine.gpu]["attention_backend"]
    text = f"Using {attention} attention backend out of potential backends: ['{attention}']."
    yield say(worker, "cuda.py:506", text)
    if machine.data > 1:
        manager = ALL2ALL.get(settings.all2all or "allgather_reducescatter", settings.all2all)
        yield say(worker, "cuda_communicator.py:201", f"Using {manager} all2all manager.")
    if settings.expert:
        ranks, rank = machine.ranks, engine * machine.tensor
        experts = constants()["model"]["experts"]
        text = (
            f"[EP Rank {rank}/{ranks}] Expert parallelism is enabled. Expert placement strategy: "
            f"linear. Local/global number of experts: {experts // ranks}/{experts}. "
        )
        yield say(worker, "expert_map_manager.py:250", text)
    kernel, kind = MOE[machine.precision]
    if settings.moe_backend:
        kernel = NAMES.get(settings.moe_backend, settings.moe_backend.upper())
    shown = f"'{kernel}'" if machine.precision == "fp4" else kernel
    text = f"Using {shown} {kind} MoE backend out of potential backends: ['{kernel}']."
    yield say(worker, "fp8.py:420", text)


def _config(settings: Settings, version: str) -> str:
    machine = settings.machine
    said = {
        "model": f"'{settings.model}'",
        "dtype": "torch.bfloat16",
        "max_seq_len": settings.max_model_len,
        "load_format": "auto",
        "tensor_parallel_size": machine.tensor,
        "pipeline_parallel_size": 1,
        "data_parallel_size": machine.data,
        "quantization": constants()["precision"][machine.precision]["quantization"],
        "enforce_eager": settings.eager,
        "kv_cache_dtype": settings.kv_dtype or "auto",
        "seed": 0,
        "served_model_name": settings.served,
        "enable_prefix_caching": settings.prefix_caching,
        "enable_chunked_prefill": True,
    }
    words = ", ".join(f"{key}={value}" for key, value in said.items())
    return f"Initializing a V1 LLM engine (v{version}) with config: {words}"


def _memory(settings: Settings, weights: float) -> str:
    data = constants()
    server, total = data["server"], data["gpu"][settings.machine.gpu]["memory"] / GIB
    desired = settings.utilization * total
    return (
        f"Free memory on device ({total:.1f}/{total:.1f} GiB) on startup. Desired GPU memory "
        f"utilization is ({settings.utilization}, {desired:.2f} GiB). Actual usage is "
        f"{weights:.2f} GiB for consumed memory (weights + non-torch), "
        f"{server['activation_gib']} GiB for peak activation, and {server['graphs_gib']} GiB for "
        f"CUDAGraph memory."
    )
