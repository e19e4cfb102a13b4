"""/metrics under vLLM 0.32's names, one series for each engine."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Upper edges in seconds, as vLLM has them.
FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
BETWEEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
WHOLE = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
LATE = "simulation:first_token_late_seconds"  # how late it was against its own schedule; not vLLM's
LATENESS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": FIRST_TOKEN,
    "vllm:inter_token_latency_seconds": BETWEEN,
    "vllm:request_time_per_output_token_seconds": BETWEEN,
    "vllm:e2e_request_latency_seconds": WHOLE,
    LATE: LATENESS,
}
COUNTERS = (
    *("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:num_preemptions_total"),
    *("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
)
REASONS = ("stop", "length", "abort", "error", "repetition")
SUCCESS = "vllm:request_success_total"


class Histogram:
    """Counts by bucket, and their sum."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.sum += value


class Metrics:
    """Everything counted, by engine number."""

    def __init__(self, engines: int, model: str) -> None:
        self.model = model
        self.engines = range(engines)
        self.counters: list[dict[str, float]] = [dict.fromkeys(COUNTERS, 0) for _ in self.engines]
        self.finished: list[dict[str, int]] = [dict.fromkeys(REASONS, 0) for _ in self.engines]
        self.histograms = [
            {name: Histogram(edges) for name, edges in HISTOGRAMS.items()} for _ in self.engines
        ]

    def count(self, engine: int, name: str, by: float = 1) -> None:
        self.counters[engine][name] += by

    def observe(self, engine: int, name: str, seconds: float) -> None:
        self.histograms[engine][name].observe(seconds)

    def text(
        self,
        gauges: Mapping[str, list[float]],
        info: list[dict[str, str]],
        lost: tuple[str, ...] = (),
    ) -> str:
        """Prometheus exposition. gauges: name to value by engine. info: labels of each engine's
        cache_config_info. lost: names that are left out."""
        families: dict[str, list[str]] = defaultdict(list)
        for engine in self.engines:
            labels = f'engine="{engine}",model_name="{self.model}"'
            for name, values in gauges.items():
                families[f"{name} gauge"].append(f"{name}{{{labels}}} {float(values[engine])}")
            for name, value in self.counters[engine].items():
                family = f"{name.removesuffix('_total')} counter"
                families[family].append(f"{name}{{{labels}}} {float(value)}")
            for reason, number in self.finished[engine].items():
                line = f'{SUCCESS}{{{labels},finished_reason="{reason}"}} {float(number)}'
                families[f"{SUCCESS.removesuffix('_total')} counter"].append(line)
            for name, histogram in self.histograms[engine].items():
                families[f"{name} histogram"] += _series(name, labels, histogram)
            told = ",".join(f'{k}="{v}"' for k, v in {**info[engine], "engine": engine}.items())
            families["vllm:cache_config_info gauge"].append(f"vllm:cache_config_info{{{told}}} 1.0")
        lines = []
        for family, found in families.items():
            kept = [line for line in found if line.split("{")[0] not in lost]
            if kept:
                lines += [f"# TYPE {family}", *kept]
        return "\n".join(lines) + "\n"


def _series(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    total = 0
    for edge, count in zip((*histogram.edges, None), histogram.counts, strict=True):
        total += count
        bound = "+Inf" if edge is None else str(edge)
        yield f'{name}_bucket{{{labels},le="{bound}"}} {float(total)}'
    yield f"{name}_count{{{labels}}} {float(total)}"
    yield f"{name}_sum{{{labels}}} {histogram.sum}"
