"""What is known of each metric before it is measured: which way is better, and how far two healthy
runs lie apart.

The spread is that of 42 public configurations of InferenceX (8xH200, 4x and 8xB200; daily runs of
2025-12-05 to 2025-12-15): as coefficient of variation, median over configurations; tolerances lie
outside the whole range that any configuration showed. A burst on vLLM has fewer samples than those
closed loops, so measured spread widens them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """higher: more is better. cv: standard deviation between runs, as a share of the value.
    tolerance: share by which a healthy run may be worse. gates: one run of it can be judged."""

    higher: bool
    cv: float
    tolerance: float
    gates: bool = True


_THROUGHPUT = Metric(higher=True, cv=0.004, tolerance=0.05)
_TPOT = Metric(higher=False, cv=0.003, tolerance=0.05)
_TTFT = Metric(higher=False, cv=0.045, tolerance=0.35)
# Of no public spread: as wide as their parts ask, and not gating, because those parts gate.
_WHOLE = Metric(higher=False, cv=0.045, tolerance=0.35, gates=False)
_GOODPUT = Metric(higher=True, cv=0.1, tolerance=0.5, gates=False)  # falls all at once at its limit
_ITL = Metric(higher=False, cv=0.05, tolerance=0.35, gates=False)  # of chunks, not of tokens

METRICS = {
    "output_throughput": _THROUGHPUT,
    "total_token_throughput": _THROUGHPUT,
    "request_throughput": _THROUGHPUT,
    "tpot_mean_ms": _TPOT,
    "tpot_median_ms": _TPOT,
    "tpot_p99_ms": Metric(higher=False, cv=0.01, tolerance=0.26),
    "ttft_mean_ms": _TTFT,
    "ttft_median_ms": _TTFT,
    # 120 % apart within healthy configurations: never gates from a single run
    "ttft_p99_ms": Metric(higher=False, cv=0.047, tolerance=1.2, gates=False),
    "itl_mean_ms": _ITL,
    "itl_median_ms": _ITL,
    "itl_p99_ms": _ITL,
    "e2el_mean_ms": _WHOLE,
    "e2el_median_ms": _WHOLE,
    "e2el_p99_ms": _WHOLE,
    "duration_s": Metric(higher=False, cv=0.004, tolerance=0.05, gates=False),  # is throughput
    "goodput_server": _GOODPUT,
    "goodput_interactive": _GOODPUT,
    "kv_cache_size_tokens": Metric(higher=True, cv=0.002, tolerance=0.02),
    "max_concurrency": Metric(higher=True, cv=0.002, tolerance=0.02),
    "resident_gib": Metric(higher=False, cv=0.02, tolerance=0.1, gates=False),
}
SPEEDS = tuple(name for name in METRICS if name.endswith(("_ms", "_s", "_throughput")))
