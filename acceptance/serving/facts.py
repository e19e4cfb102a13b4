"""What a server's log says about the server: memory, KV cache, backends, expert parallelism.

Texts read in vLLM 0.32.0, and in the older forms that public issues show: the KV cache size and the
concurrency were two lines, `GPU KV cache size` is `CPU KV cache size` on CPU. Many of these lines
are written by one rank only, so a rank that is missing here is not a rank that is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.line import LogLine

_KEPT = 64  # distinct entries kept per fact; a log may be hostile, a node has 8 ranks
_CONFIG = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "dtype",
    "max_seq_len",
    "load_format",
    "quantization",
    "kv_cache_dtype",
    "enforce_eager",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "served_model_name",
    "seed",
)


class Experts(NamedTuple):
    """One rank's share of the experts. local and total: numbers of experts of one layer."""

    rank: int
    ranks: int
    placement: str
    local: int
    total: int


@dataclass
class Facts:
    """Everything is empty until its line was seen. Keys are process names: "Worker_TP0_EP0" for
    what a rank says, "EngineCore_DP0" for what an engine says. Memory in GiB, times in seconds.

    kv_cache_tokens: capacity of one engine; a data-parallel server has the sum.
    max_concurrency: requests of `concurrency_length` tokens that fit one engine's cache.
    graph_pool_actual, graph_pool_estimated: CUDA graph memory, taken and as profiled beforehand.
    engine: the resolved configuration the first engine prints, as text by key.
    jit_during_inference: kernels compiled while serving; each is a latency spike.
    """

    version: str = ""
    architecture: str = ""
    engine: dict[str, str] = field(default_factory=dict)
    model_gib: dict[str, float] = field(default_factory=dict)
    model_seconds: dict[str, float] = field(default_factory=dict)
    weights_seconds: dict[str, float] = field(default_factory=dict)
    compile_seconds: dict[str, float] = field(default_factory=dict)
    available_kv_gib: dict[str, float] = field(default_factory=dict)
    kv_device: str = ""
    kv_cache_tokens: dict[str, int] = field(default_factory=dict)
    max_concurrency: dict[str, float] = field(default_factory=dict)
    concurrency_length: int | None = None
    activation_peak_gib: dict[str, float] = field(default_factory=dict)
    graph_capture_seconds: dict[str, float] = field(default_factory=dict)
    graph_capture_gib: dict[str, float] = field(default_factory=dict)
    graph_pool_actual: dict[str, float] = field(default_factory=dict)
    graph_pool_estimated: dict[str, float] = field(default_factory=dict)
    init_seconds: dict[str, float] = field(default_factory=dict)
    attention_backend: str = ""
    mla_prefill_backend: str = ""
    moe_backend: str = ""
    all2all: str = ""
    all_reduce: tuple[str, ...] = ()
    experts: dict[int, Experts] = field(default_factory=dict)
    unknown_variables: tuple[str, ...] = ()
    jit_during_inference: tuple[str, ...] = ()
    jit_count: int = 0

    @property
    def expert_parallel(self) -> bool:
        """Whether at least one rank said that expert parallelism is on."""
        return bool(self.experts)

    @property
    def total_kv_tokens(self) -> int | None:
        """KV capacity of all engines that told theirs; None when none did."""
        return sum(self.kv_cache_tokens.values()) or None

    def feed(self, line: LogLine) -> None:
        """Takes what one line says. Never raises; a text that does not fit is passed over."""
        if line.level in ("ERROR", "CRITICAL", "FATAL"):
            return
        for needle, pattern, take in _RULES:
            if needle in line.text and (match := pattern.search(line.text)):
                take(self, line.process, match)


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _put(values: dict[str, float], key: str, text: str) -> None:
    if key in values or len(values) < _KEPT:
        values[key] = _number(text)


def _each(*names: str) -> Callable[[Facts, str, re.Match[str]], None]:
    """Puts group 1, 2... into the dictionaries called so, by process."""

    def take(facts: Facts, process: str, match: re.Match[str]) -> None:
        for name, text in zip(names, match.groups(), strict=True):
            if text is not None:
                _put(getattr(facts, name), process, text)

    return take


def _first(*names: str) -> Callable[[Facts, str, re.Match[str]], None]:
    """Puts group 1, 2... into the attributes called so, unless they are known."""

    def take(facts: Facts, process: str, match: re.Match[str]) -> None:
        for name, text in zip(names, match.groups(), strict=True):
            if text and not getattr(facts, name):
                setattr(facts, name, text)

    return take


def _engine(facts: Facts, process: str, match: re.Match[str]) -> None:
    facts.version = facts.version or match[1]
    if not facts.engine:
        found = dict(_SETTING.findall(match[2]))
        facts.engine = {key: found[key].strip("'") for key in _CONFIG if key in found}


def _kv_size(facts: Facts, process: str, match: re.Match[str]) -> None:
    facts.kv_device = match[1]
    if process in facts.kv_cache_tokens or len(facts.kv_cache_tokens) < _KEPT:
        facts.kv_cache_tokens[process] = int(_number(match[2]))


def _concurrency(facts: Facts, process: str, match: re.Match[str]) -> None:
    facts.concurrency_length = int(_number(match[1]))
    _put(facts.max_concurrency, process, match[2])


def _experts(facts: Facts, process: str, match: re.Match[str]) -> None:
    rank, ranks, placement, local, total = match.groups()
    if len(facts.experts) < 4096:
        facts.experts[int(rank)] = Experts(int(rank), int(ranks), placement, int(local), int(total))


def _all_reduce(facts: Facts, process: str, match: re.Match[str]) -> None:
    # One line per group of ranks; the tensor-parallel group is the one that matters.
    if not facts.all_reduce or match[2].startswith("tp"):
        facts.all_reduce = tuple(re.findall(r"'([A-Za-z0-9_]{1,40})'", match[1]))


def _unknown(facts: Facts, process: str, match: re.Match[str]) -> None:
    if match[1] not in facts.unknown_variables and len(facts.unknown_variables) < _KEPT:
        facts.unknown_variables += (match[1],)


def _jit(facts: Facts, process: str, match: re.Match[str]) -> None:
    facts.jit_count += 1
    if len(facts.jit_during_inference) < _KEPT:
        facts.jit_during_inference += (match[0][:300],)


_N = r"(\d[\d,]{0,19}(?:\.\d{1,9})?)"
_SETTING = re.compile(rf"\b({'|'.join(_CONFIG)})=([^,()\s]{{1,200}})")
JIT_DURING_INFERENCE = re.compile(r"^\S{1,60} [^:]{1,80} during inference: .{1,200}")

# needle (a cheap test that most lines fail), pattern, what to do with the match
_RULES: tuple[tuple[str, re.Pattern[str], Callable[[Facts, str, re.Match[str]], None]], ...] = (
    tuple(
        (needle, re.compile(pattern), take)
        for needle, pattern, take in (
            (
                "Initializing a V1 LLM engine",
                r"V1 LLM engine \(v([^)\s]{1,60})\) with config: (.{1,16000})",
                _engine,
            ),
            (
                "Resolved architecture",
                r"Resolved architecture: (\w{1,100})",
                _first("architecture"),
            ),
            (
                "Model loading took",
                rf"Model loading took {_N} Gi?B(?: memory)? and {_N} s",
                _each("model_gib", "model_seconds"),
            ),
            (
                "Loading weights took",
                rf"Loading weights took {_N} seconds",
                _each("weights_seconds"),
            ),
            ("torch.compile t", rf"torch\.compile t(?:ook|akes) {_N} s", _each("compile_seconds")),
            (
                "Available KV cache memory",
                rf"Available KV cache memory: {_N} GiB",
                _each("available_kv_gib"),
            ),
            (
                "GiB for KV cache",
                rf"\({_N}/[\d.,]{{1,20}}\)? GiB for KV cache",
                _each("available_kv_gib"),
            ),
            (
                " KV cache size: ",
                rf"(\w{{1,10}})(?: \+ host)? KV cache size: {_N} tokens",
                _kv_size,
            ),
            (
                "Maximum concurrency for",
                rf"Maximum concurrency for {_N} tokens per request: {_N}x",
                _concurrency,
            ),
            (
                "Graph capturing finished",
                rf"Graph capturing finished in {_N} secs, took {_N} GiB",
                _each("graph_capture_seconds", "graph_capture_gib"),
            ),
            (
                "CUDA graph pool memory",
                rf"CUDA graph pool memory: {_N} GiB \(actual\), {_N} GiB \(estimated\)",
                _each("graph_pool_actual", "graph_pool_estimated"),
            ),
            (
                "for peak activation",
                rf"{_N} GiB for peak activation",
                _each("activation_peak_gib"),
            ),
            ("init engine (", rf"init engine \([^)]{{1,100}}\) took {_N} s", _each("init_seconds")),
            (
                "MLA prefill backend",
                r"Using (\w{1,60}) MLA prefill backend",
                _first("mla_prefill_backend"),
            ),
            (
                " MoE backend",
                r"Using '?([^'\n]{1,60}?)'? (?:Unquantized|\w*[Ff][Pp][48]\w*|W4A8) MoE backend",
                _first("moe_backend"),
            ),
            (
                " backend",
                r"^Using (?:AttentionBackendEnum\.)?(?!CPU backend)([A-Z][A-Z0-9_]{2,40})"
                r"(?: attention)? backend(?:\.$| out of| on V1)",
                _first("attention_backend"),
            ),
            (
                "all-reduce backends",
                r"Using (\[[^\]]{0,300}\]) all-reduce backends[^']{0,80}'?([^' ]{0,60})",
                _all_reduce,
            ),
            ("all2all manager", r"Using (\w{1,60}) all2all manager", _first("all2all")),
            (
                "Expert parallelism is enabled",
                r"\[EP Rank (\d{1,5})/(\d{1,5})\] Expert parallelism is enabled\. Expert placement "
                r"strategy: (\w{1,40})\. Local/global number of experts: (\d{1,6})/(\d{1,6})",
                _experts,
            ),
            (
                "Unknown vLLM environment variable",
                r"Unknown vLLM environment variable detected: (\w{1,120})",
                _unknown,
            ),
            (" during inference: ", JIT_DURING_INFERENCE.pattern, _jit),
        )
    )
)
