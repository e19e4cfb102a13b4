"""How each intent is told to each vLLM version, as data.

Bounds were read in the released packages 0.12.0 to 0.33.0 (vllm/envs.py, engine/arg_utils.py,
config/ and the backends themselves), the first release of every minor version; none is inferred.
Pull requests name the change. tests/deployments holds the names that each release knows against
this table.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST, BEYOND = "0.12", "0.34"  # the table covers FIRST <= version < BEYOND
GPU = "hopper|blackwell"

FP4 = ("VLLM_USE_FLASHINFER_MOE_FP4", "1")
FP8 = ("VLLM_USE_FLASHINFER_MOE_FP8", "1")
TRTLLM = ("VLLM_FLASHINFER_MOE_BACKEND", "latency")
CUTLASS = ("VLLM_FLASHINFER_MOE_BACKEND", "throughput")


@dataclass(frozen=True)
class Row:
    """What vLLM from `since` up to, not including, `until` takes for an intent.

    value: the value in text, alternatives with |, "*" for any. only: markers that the deployment
    must carry, with spaces between, alternatives with |. flags, env: "{}" stands for the value.
    Without either, the version has no such thing and the note says what follows.
    """

    intent: str
    value: str = "*"
    since: str = FIRST
    until: str = BEYOND
    only: str = ""
    flags: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    note: str = ""


def _attention(value: str, only: str) -> tuple[Row, Row]:
    """The variable was removed after 0.14 (vllm PR#32812); the flag exists since 0.13."""
    by_env = (("VLLM_ATTENTION_BACKEND", "{}"),)
    return (
        Row("attention_backend", value, until="0.15", only=only, env=by_env),
        Row("attention_backend", value, "0.15", only=only, flags=("--attention-backend", "{}")),
    )


def _moe(value: str, only: str, *env: tuple[str, str]) -> tuple[Row, Row]:
    """--moe-backend exists since 0.17 (vllm PR#33807); before, FlashInfer was chosen by pairs
    of variables."""
    return (
        Row("moe_backend", value, until="0.17", only=only, env=env),
        Row("moe_backend", value, "0.17", only=only, flags=("--moe-backend", "{}")),
    )


def _flashinfer(only: str, best: str, env: tuple[str, str]) -> tuple[Row, Row]:
    """The recipe's word and variable: FlashInfer's best kernels for experts. The variable is
    deprecated in 0.22 (vllm PR#43148, removal planned for 0.23) and unknown from 0.24 on."""
    note = f"moe_backend = flashinfer is {best} here, what the recipe's variable chose first"
    flags = ("--moe-backend", best)
    return (
        Row("moe_backend", "flashinfer", until="0.23", only=only, env=(env,)),
        Row("moe_backend", "flashinfer", "0.23", only=only, flags=flags, note=note),
    )


def _all2all(value: str, since: str, until: str = BEYOND) -> Row:
    """The flag exists in all versions; from 0.15 on it is the only undeprecated way
    (vllm PR#33535)."""
    return Row("all2all_backend", value, since, until, flags=("--all2all-backend", "{}"))


TABLE: tuple[Row, ...] = (
    Row("max_model_len", flags=("--max-model-len", "{}")),
    Row("max_num_batched_tokens", flags=("--max-num-batched-tokens", "{}")),
    Row("max_num_seqs", flags=("--max-num-seqs", "{}")),
    # vLLM's default is 0.9 before 0.20 and 0.92 since.
    Row("gpu_memory_utilization", flags=("--gpu-memory-utilization", "{}")),
    Row("enforce_eager", "true", flags=("--enforce-eager",)),
    Row("load_format", "dummy", flags=("--load-format", "{}")),
    # Read in 0.25.1 and 0.32.0 alone, so not offered to older ones.
    Row(
        "deep_gemm_warmup",
        "skip|relax|full",
        "0.25",
        only=GPU,
        env=(("VLLM_DEEP_GEMM_WARMUP", "{}"),),
    ),
    # What dense MLA can store; vLLM's other types are for other models or refuse MLA.
    Row("kv_cache_dtype", "auto", flags=("--kv-cache-dtype", "{}")),
    Row("kv_cache_dtype", "bfloat16", "0.15", only=GPU, flags=("--kv-cache-dtype", "{}")),
    Row("kv_cache_dtype", "fp8|fp8_e4m3", only=GPU, flags=("--kv-cache-dtype", "{}")),
    # Dense MLA backends, by the architecture that each says it runs on.
    *_attention("FLASHINFER_MLA|CUTLASS_MLA|FLASHMLA|TRITON_MLA", "blackwell"),
    *_attention("FLASH_ATTN_MLA|FLASHMLA|TRITON_MLA", "hopper"),
    Row(
        "attention_backend",
        "TOKENSPEED_MLA",
        "0.21",
        only="blackwell",
        flags=("--attention-backend", "{}"),
    ),
    Row("attention_backend", "CPU_MLA", "0.28", only="cpu", flags=("--attention-backend", "{}")),
    Row("attention_backend", "AMX_MLA", "0.29", only="cpu", flags=("--attention-backend", "{}")),
    # Kernels for experts, by what each takes. FlashInfer's CUTLASS kernels take FP8 in blocks of
    # 128x128 on Hopper alone; FP4 on Hopper is for Marlin alone.
    *_flashinfer("blackwell fp4", "flashinfer_trtllm", FP4),
    *_flashinfer("blackwell fp8", "flashinfer_trtllm", FP8),
    *_flashinfer("hopper fp8", "flashinfer_cutlass", FP8),
    *_moe("flashinfer_trtllm", "blackwell fp4", FP4, TRTLLM),
    *_moe("flashinfer_trtllm", "blackwell fp8", FP8, TRTLLM),
    *_moe("flashinfer_cutlass", "blackwell fp4", FP4, CUTLASS),
    *_moe("flashinfer_cutlass", "hopper fp8", FP8, CUTLASS),
    Row(
        "moe_backend",
        "flashinfer_cutedsl|cutlass|marlin",
        "0.17",
        only="blackwell fp4",
        flags=("--moe-backend", "{}"),
    ),
    Row(
        "moe_backend",
        "deep_gemm|cutlass|triton|marlin",
        "0.17",
        only=f"{GPU} fp8",
        flags=("--moe-backend", "{}"),
    ),
    Row("moe_backend", "marlin", "0.17", only="hopper fp4", flags=("--moe-backend", "{}")),
    # DeepGEMM is on by default; the recipe names it for runs without FlashInfer.
    Row("deep_gemm", "true", only=GPU, env=(("VLLM_USE_DEEP_GEMM", "1"),)),
    Row("deep_gemm", "false", only=GPU, env=(("VLLM_USE_DEEP_GEMM", "0"),)),
    # The recipe's variable, deprecated from 0.12 on and unknown from 0.16 on.
    Row(
        "all2all_backend",
        "allgather_reducescatter|deepep_high_throughput|deepep_low_latency|flashinfer_all2allv"
        "|naive|pplx",
        until="0.15",
        env=(("VLLM_ALL2ALL_BACKEND", "{}"),),
    ),
    _all2all("allgather_reducescatter|deepep_high_throughput|deepep_low_latency", "0.15"),
    _all2all("flashinfer_all2allv", "0.15"),
    # Later versions accept these two names, warn that they are removed, and use another.
    _all2all("pplx", "0.15", "0.17"),
    _all2all("naive", "0.15", "0.19"),
    _all2all("flashinfer_nvlink_two_sided|flashinfer_nvlink_one_sided|nixl_ep", "0.18"),
    _all2all("deepep_v2", "0.24"),
    _all2all("moonep", "0.31"),
    # The models' own forms: R1 opens its reasoning in the prompt, V3 and R1 call tools alike.
    Row("reasoning_parser", flags=("--reasoning-parser", "{}")),
    Row("tool_call_parser", flags=("--tool-call-parser", "{}", "--enable-auto-tool-choice")),
    Row("chat_template", flags=("--chat-template", "{}")),
    # The recipe's benchmarks want it off; vLLM ships it on in every version here.
    Row("prefix_caching", "off", flags=("--no-enable-prefix-caching",)),
    Row("kv_cache_gib", only="cpu", env=(("VLLM_CPU_KVCACHE_SPACE", "{}"),)),
    Row("cpu_threads_bind", only="cpu", env=(("VLLM_CPU_OMP_THREADS_BIND", "{}"),)),
    # vllm PR#34730. The default of 0 aborts requests, and left clients without an answer.
    Row(
        "shutdown_timeout",
        until="0.18",
        note="no --shutdown-timeout before vLLM 0.18: SIGTERM cuts off requests in flight",
    ),
    Row("shutdown_timeout", since="0.18", flags=("--shutdown-timeout", "{}")),
    # vllm#32116: 600 s is too short for a cold DeepGEMM warm-up; a constant before 0.14.
    Row(
        "engine_ready_timeout",
        until="0.14",
        note="vLLM before 0.14 gives up after 600 s of starting, whatever the start budget says",
    ),
    Row("engine_ready_timeout", since="0.14", env=(("VLLM_ENGINE_READY_TIMEOUT_S", "{}"),)),
    # vllm PR#33581.
    Row(
        "environ_validation",
        until="0.17",
        note="no --fail-on-environ-validation before vLLM 0.17: variables that it does not know "
        "are ignored in silence",
    ),
    Row("environ_validation", since="0.17", flags=("--fail-on-environ-validation",)),
)
