from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptance.serving.facts import Facts
from acceptance.serving.line import LogLine, parse
from acceptance.serving.log import read_lines
from acceptance.serving.phases import Phase, Phases

LOGS = Path(__file__).parents[1] / "data" / "logs"
P = Phase


def run(name: str) -> tuple[Phases, list[str]]:
    """A log fed with one second a line, and every progress it showed."""
    phases = Phases(began=100.0)
    shown: list[str] = []
    for index, line in enumerate(read_lines(LOGS / name), start=1):
        phases.feed(line, 100.0 + index)
        if phases.progress and (not shown or shown[-1] != phases.progress):
            shown.append(phases.progress)
    return phases, shown


def one(text: str, process: str = "Worker_TP0_EP0") -> LogLine:
    (line,) = parse(f"({process} pid=1) INFO 11-24 05:56:02 [x.py:1] {text}")
    return line


@pytest.mark.parametrize(
    ("name", "phases"),
    [
        (
            "real-tp2-ep-start-and-stop.log",
            [P.IMPORTING, P.LAUNCHING, P.LOADING, P.PROFILING, P.WARMING],
        ),
        (
            "real-dp2-ep-start-and-stop.log",
            [P.IMPORTING, P.LAUNCHING, P.LOADING, P.PROFILING, P.WARMING],
        ),
        ("real-worker-keyerror.log", [P.IMPORTING, P.LAUNCHING, P.LOADING]),
        (
            "synthetic-gpu-start-0.32.log",
            [
                P.IMPORTING,
                P.LAUNCHING,
                P.LOADING,
                P.COMPILING,
                P.PROFILING,
                P.WARMING,
                P.CAPTURING,
                P.WARMING,
            ],
        ),
        (
            "synthetic-gpu-start-0.12.log",
            [P.IMPORTING, P.LAUNCHING, P.LOADING, P.PROFILING, P.WARMING, P.CAPTURING, P.WARMING],
        ),
    ],
)
def test_a_start_passes_its_phases_in_order(name: str, phases: list[Phase]) -> None:
    started, _ = run(name)
    assert [transition.phase for transition in started.transitions] == phases
    assert started.listening is (name != "real-worker-keyerror.log")


def test_only_a_generation_makes_a_server_ready() -> None:
    started, _ = run("real-tp2-ep-start-and-stop.log")
    assert started.phase is P.WARMING
    assert started.progress == "first generation"
    transition = started.ready(400.0)
    assert transition is not None
    assert (transition.phase, transition.at, transition.number) == (P.READY, 400.0, 0)
    assert started.ready(401.0) is None
    assert started.feed(one("Starting to load model x..."), 402.0) is None
    assert started.phase.value == "ready"


def test_seconds_add_up_to_the_whole_start() -> None:
    started, _ = run("synthetic-gpu-start-0.32.log")
    started.ready(400.0)
    spent = started.seconds(500.0)
    assert list(spent) == [
        "importing",
        "launching",
        "loading",
        "compiling",
        "profiling",
        "warming",
        "capturing",
    ]
    assert sum(spent.values()) == pytest.approx(300.0)


def test_progress_is_shown_live() -> None:
    _, shown = run("synthetic-gpu-start-0.32.log")
    assert shown == [
        "checkpoint shards 0/163",
        "checkpoint shards 40/163",
        "checkpoint shards 120/163",
        "checkpoint shards 163/163",
        "DeepGEMM warmup 0/8372",
        "DeepGEMM warmup 1005/8372",
        "DeepGEMM warmup 8372/8372",
        "CUDA graphs (mixed prefill-decode, PIECEWISE) 0/51",
        "CUDA graphs (mixed prefill-decode, PIECEWISE) 24/51",
        "CUDA graphs (mixed prefill-decode, PIECEWISE) 51/51",
        "CUDA graphs (decode, FULL) 35/35",
        "first generation",
    ]


def test_words_of_a_phase_inside_other_lines_change_nothing() -> None:
    started = Phases(0.0)
    for text in (
        "Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup.",
        "non-default args: {'x': 'Capturing CUDA graphs'}",
        "Retrying after: init engine (profile)",
    ):
        started.feed(one(text), 1.0)
    assert started.phase is P.LAUNCHING


def test_a_rank_that_lags_does_not_turn_the_phase_back() -> None:
    started = Phases(0.0)
    for text in (
        "Starting to load model x...",
        "Starting torch.compile",
        "Starting to load model x...",
        "[backbone] Dynamo bytecode transform time: 9.12 s",
    ):
        started.feed(one(text), 1.0)
    assert started.phase is P.COMPILING
    assert [t.phase for t in started.transitions] == [P.IMPORTING, P.LOADING, P.COMPILING]


def test_turns_are_bounded_whatever_the_log_says() -> None:
    started = Phases(0.0)
    for index in range(5000):
        started.feed(one("JIT kernel warmup starting."), index)
        started.feed(one("Capturing CUDA graphs (decode, FULL):  1%| | 1/35 ["), index)
    assert len(started.transitions) <= 200
    started.feed(one("Application startup complete."), 5001.0)
    assert started.ready(5002.0) is not None


def test_facts_of_a_rehearsal() -> None:
    started, _ = run("real-tp2-ep-start-and-stop.log")
    facts = started.facts
    assert facts.version == "0.32.0"
    assert facts.architecture == "DeepseekV3ForCausalLM"
    assert facts.engine["tensor_parallel_size"] == "2"
    assert facts.engine["max_seq_len"] == "2048"
    assert facts.engine["enable_prefix_caching"] == "False"
    assert facts.kv_device == "CPU"
    assert facts.kv_cache_tokens == {"EngineCore": 310_688}
    assert facts.max_concurrency == {"EngineCore": 151.7}
    assert facts.concurrency_length == 2048
    assert facts.available_kv_gib == {"Worker_TP0_EP0": 1.0, "Worker_TP1_EP1": 1.0}
    assert facts.init_seconds == {"EngineCore": 2.79}
    assert facts.attention_backend == "CPU_MLA"
    assert facts.mla_prefill_backend == "CPU_SDPA_MLA"
    assert facts.moe_backend == "CPU"
    assert facts.expert_parallel
    assert facts.experts[0] == (0, 2, "linear", 8, 16)


def test_facts_of_data_parallel_engines_are_kept_apart() -> None:
    facts = run("real-dp2-ep-start-and-stop.log")[0].facts
    assert facts.kv_cache_tokens == {"EngineCore_DP0": 310_688, "EngineCore_DP1": 310_688}
    assert facts.total_kv_tokens == 621_376
    assert facts.init_seconds == {"EngineCore_DP0": 2.88, "EngineCore_DP1": 2.83}
    assert facts.all2all == "allgather_reducescatter"
    assert sorted(facts.experts) == [0, 1]
    assert facts.experts[1].local == 8


def test_facts_of_a_gpu_start() -> None:
    facts = run("synthetic-gpu-start-0.32.log")[0].facts
    worker = "Worker_TP0_EP0"
    assert facts.kv_device == "GPU"
    assert facts.total_kv_tokens == 602_112
    assert facts.max_concurrency == {"EngineCore": 9.19}
    assert facts.model_gib == {worker: 79.93}
    assert facts.available_kv_gib == {worker: 39.41}
    assert facts.activation_peak_gib == {worker: 5.28}
    assert facts.graph_pool_actual == {worker: 1.21}
    assert facts.graph_pool_estimated == {worker: 1.32}
    assert facts.graph_capture_seconds == {worker: 17.0}
    assert facts.compile_seconds == {worker: 40.02}
    assert facts.attention_backend == "FLASH_ATTN_MLA"
    assert facts.moe_backend == "DEEPGEMM"
    assert facts.all_reduce == ("FLASHINFER", "CUSTOM", "SYMM_MEM", "PYNCCL")
    assert facts.unknown_variables == ("VLLM_USE_FLASHINFER_MOE_FP8",)
    assert facts.jit_count == 1
    assert "_fwd_grouped_kernel_stage1" in facts.jit_during_inference[0]


def test_facts_in_the_older_format_of_two_lines() -> None:
    facts = run("synthetic-gpu-start-0.12.log")[0].facts
    assert facts.version == "0.12.0"
    assert facts.kv_cache_tokens == {"EngineCore_DP0": 834_304}
    assert facts.max_concurrency == {"EngineCore_DP0": 12.73}
    assert facts.model_gib == {"EngineCore_DP0": 102.4103}
    assert facts.moe_backend == "FLASHINFER_TRTLLM"
    assert facts.attention_backend == "CUTLASS_MLA"
    assert facts.init_seconds == {"EngineCore_DP0": 19.15}


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("Using CUTLASS_MLA backend.", "attention_backend", "CUTLASS_MLA"),
        ("Using AttentionBackendEnum.FLASHMLA backend.", "attention_backend", "FLASHMLA"),
        ("Using LBNHC KV cache layout.", "attention_backend", ""),
        ("Using FLASHINFER MLA prefill backend.", "attention_backend", ""),
        ("Using 'VLLM_CUTLASS' NvFp4 MoE backend out of", "moe_backend", "VLLM_CUTLASS"),
        ("Using FlashInfer TRTLLM Fp8 MoE backend out of", "moe_backend", "FlashInfer TRTLLM"),
        ("Using CPUUnquantizedExperts MoE backend", "moe_backend", ""),
        ("Using deepep_low_latency all2all manager.", "all2all", "deepep_low_latency"),
        ("GPU + host KV cache size: 1,000 tokens, Maximum", "kv_device", "GPU"),
    ],
)
def test_backends_are_told_apart(text: str, attribute: str, value: str) -> None:
    facts = Facts()
    facts.feed(one(text))
    assert getattr(facts, attribute) == value


def test_an_error_that_quotes_a_fact_is_none() -> None:
    facts = Facts()
    (line,) = parse("(W pid=1) ERROR 11-24 05:56:02 [x.py:1] GPU KV cache size: 5 tokens")
    facts.feed(line)
    assert facts == Facts()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "GPU KV cache size: {} tokens",
                    "Model loading took {} GiB memory and {} seconds",
                    "Available KV cache memory: {} GiB",
                    "[EP Rank {}/8] Expert parallelism is enabled. Expert placement strategy: "
                    "linear. Local/global number of experts: {}/256",
                    "Unknown vLLM environment variable detected: VLLM_{}",
                    "Triton kernel JIT compilation during inference: {}.",
                    "DeepGEMM warmup: {}%| {}/{} [",
                    "{}",
                ]
            ),
            st.text(max_size=30) | st.integers(0, 10**25).map(str) | st.just(",,,."),
        ),
        max_size=40,
    )
)
@settings(deadline=None, max_examples=150)
def test_no_line_breaks_it(lines: list[tuple[str, str]]) -> None:
    started = Phases(0.0)
    for index, (form, value) in enumerate(lines):
        text = form.replace("{}", value)
        for line in parse(f"(Worker{index} pid=1) INFO 11-24 05:56:02 [x.py:1] {text}"):
            started.feed(line, float(index))
    assert len(started.facts.jit_during_inference) <= 64
    assert len(started.facts.model_gib) <= 64
