"""The live configuration is the one that was asked for.

Options that a version no longer reads are passed over in silence, and a line that a shell dropped
leaves no trace either: the server answers as well, only slower, or with less memory. So each thing
the deployment asks for is held against what the server itself says. What the deployment leaves to
vLLM is not judged here. None of this proves that the setting has its effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Profile
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.holding import as_asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from acceptance.serving.differences import Comparison
    from acceptance.serving.live import LiveConfig
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck


@check(2)
def test_version(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """/version is that of the vLLM that was started. Of a server that was there before, there is
    no version to compare with.

    Does not prove that its kernels are of that version. Would have caught a launch that found
    another vLLM on PATH, or another server on the port.
    """
    if "version" not in comparisons:
        not_applicable("the server was there before: no version was asked for")
    as_asked(comparisons, "version", record_check)


@check(4)
def test_fingerprint_version(
    comparisons: Mapping[str, Comparison], record_check: RecordCheck
) -> None:
    """The engine that answers is of the version that the web server says.

    Does not prove that all engines are. Would have caught a router with an old replica behind it.
    """
    if "version in fingerprint" not in comparisons:
        not_applicable("this vLLM, or its --fingerprint-mode, gives no fingerprint")
    as_asked(comparisons, "version in fingerprint", record_check)


@check(4)
def test_layout(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """Tensor, data and expert parallelism are as asked, by system_fingerprint and by the log.

    Does not prove that work reaches every rank. Would have caught the first FP4 command of the
    public recipe, whose missing backslash drops the flags after it.
    """
    as_asked(comparisons, "layout", record_check)


def test_expert_parallelism(
    comparisons: Mapping[str, Comparison], record_check: RecordCheck
) -> None:
    """The ranks that log their experts hold an equal share each, of all ranks asked for.

    Does not prove that tokens reach the right expert (see correctness). Would have caught a
    server with experts sharded by tensor parallelism, which vllm#28887 found to differ in speed.
    """
    as_asked(comparisons, "expert_parallelism", record_check)


@check(3)
def test_served_models(
    live: LiveConfig, comparisons: Mapping[str, Comparison], record_check: RecordCheck
) -> None:
    """/v1/models lists exactly the deployment's model; where its weights came from is recorded.

    Does not prove that its weights are that model's. Would have caught a deployment that serves
    the base model, or an adapter beside it, to whoever asks for it.
    """
    roots = {model.id: model.root for model in live.models}
    as_asked(comparisons, "served models", record_check, roots=roots)


@check(3)
def test_max_model_len(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """The longest request is as long as asked.

    Does not prove that one fits (see test_limits). Would have caught deepseek-ai/DeepSeek-V2#83,
    where the KV cache held less than the model's length.
    """
    as_asked(comparisons, "max_model_len", record_check)


def test_engines(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """One engine for each data-parallel rank exports its cache.

    Does not prove that requests reach each (see performance). Would have caught a data-parallel
    server that lost an engine at start and balanced over the rest.
    """
    as_asked(comparisons, "engines", record_check)


def test_prefix_caching(
    server: Server, comparisons: Mapping[str, Comparison], record_check: RecordCheck
) -> None:
    """Every engine caches prefixes exactly when the profile says so.

    Does not prove that nothing was cached during a cell (see performance). Would have caught the
    public recipe's note that it is off by default, which is false since vLLM serves with it on.
    """
    if "prefix_caching" not in comparisons and server.profile is Profile.SERVING:
        not_applicable("vLLM serves MLA on CPU without prefix caching, whatever is asked")
    as_asked(comparisons, "prefix_caching", record_check)


def test_dtype(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """Everything but the quantized weights is computed in bfloat16, as R1 and V3 were trained and
    published, by the server's log.

    Does not prove that every kernel does. Would have caught a server that computes in float32, at
    half the speed and with nothing wrong in its answers.
    """
    as_asked(comparisons, "dtype", record_check)


def test_kv_cache_dtype(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """Every engine stores the KV cache in the type asked for.

    Does not prove that attention computes in it. Would have caught an NVFP4 deployment that kept
    a BF16 cache, and with it half the concurrency.
    """
    as_asked(comparisons, "kv_cache_dtype", record_check)


def test_gpu_memory_utilization(
    comparisons: Mapping[str, Comparison], record_check: RecordCheck
) -> None:
    """Every engine plans with the share of memory asked for.

    Does not prove that it keeps to it (see memory). Would have caught a run at vLLM's default of
    0.92 where 0.95 was meant; how too large a share ends, see vllm#57475.
    """
    as_asked(comparisons, "gpu_memory_utilization", record_check)


def test_kv_capacity(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """Every engine says how many tokens its KV cache holds.

    Does not prove that this is as many as the memory allows (see memory). Would have caught an
    engine that came up without its cache sized.
    """
    as_asked(comparisons, "kv_capacity", record_check)


def test_kv_cache_bytes(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """On CPU, where the size of the cache is given, every engine has that size.

    Does not prove that the memory is there. Would have caught VLLM_CPU_KVCACHE_SPACE being lost,
    which leaves vLLM to take its share of the host's memory.
    """
    as_asked(comparisons, "kv_cache_bytes", record_check)


def test_attention_backend(
    comparisons: Mapping[str, Comparison], record_check: RecordCheck
) -> None:
    """The log names the attention kernels asked for.

    Does not prove them right (see correctness). Would have caught vllm#50292: the variable that
    chose the backend was no longer read.
    """
    as_asked(comparisons, "attention_backend", record_check)


def test_moe_backend(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """The log names the experts' kernels asked for.

    Does not prove them right (see correctness; vllm#53411). Would have caught a recipe's
    VLLM_USE_FLASHINFER_MOE_FP4, which vLLM 0.32 does not know.
    """
    as_asked(comparisons, "moe_backend", record_check)


def test_deep_gemm(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """FP8 experts run in DeepGEMM, or do not, as asked, where no moe_backend decides.

    Does not prove what the dense layers run in. Would have caught other kernels in the
    place of a DeepGEMM that is missing or outdated (as in NVIDIA/NeMo-Retriever PR#2292).
    """
    as_asked(comparisons, "deep_gemm", record_check)


def test_all2all_backend(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """With data parallelism, the log names the all-to-all asked for.

    Does not prove that it moves tokens right. Would have caught vLLM's silent fallback for the
    removed backends pplx and naive.
    """
    as_asked(comparisons, "all2all_backend", record_check)


def test_enforce_eager(comparisons: Mapping[str, Comparison], record_check: RecordCheck) -> None:
    """CUDA graphs are on unless the deployment says otherwise.

    Does not prove that every batch size runs in one. Would have caught a debugging flag left in
    the command, which costs decoding most of its speed.
    """
    as_asked(comparisons, "enforce_eager", record_check)


def test_no_unknown_variable(
    comparisons: Mapping[str, Comparison], record_check: RecordCheck
) -> None:
    """The log has no `Unknown vLLM environment variable` line.

    Does not prove that the known ones have an effect. Would have caught vllm#50292 and the public
    recipe's VLLM_USE_FLASHINFER_MOE_FP4 and _FP8.
    """
    as_asked(comparisons, "unknown variables", record_check)
