"""Writes fixtures/demo/references.toml from the simulated server's own latency model.

`python tests/tools/simulated_references.py` after a change of model.toml or of a simulated
deployment's scale; tests/simulation holds the file to what this writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.deployments.load import load_deployments
from acceptance.deployments.schema import Lane
from acceptance.judging.tomlout import toml_text
from acceptance.load.workloads import Tier, cells
from acceptance.simulation.expected import expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.load.workloads import Cell
    from acceptance.simulation.expected import Expected

FILE = Path(__file__).parents[2] / "fixtures" / "demo" / "references.toml"
SOURCE = "acceptance/simulation/model.toml, in virtual time"
HEADER = """What the simulated server's latency model says of each cell, in virtual time.
Made by tests/tools/simulated_references.py. The tolerances are what the machine under server and
client adds, and the spread of a few tokens. Not loaded by itself: --references names it."""
# What two cores add to a TTFT: at once, for each request of the burst, and as a share of it. Cells
# of 1, 8, 16, 32, 64, 128 and 256 requests lay at most 2, 10, 4, 6, 5, 2 and 17 ms above the model
# in four runs, one of them beside a test suite. Before first tokens left the server first, and the
# client collected its garbage rarely, it was 6, 9, 19, 18, 28, 91 and 121 ms at loads of 1 to 6.
ADDED_MS, REQUEST_MS, SHARE = 15.0, 0.2, 0.025
# Below a mean TTFT: requests that start later than the first wait for less. Up to 21 ms of 1147.
EARLY = 0.08
STEP = 0.03  # what is added to a step's own time
# Median and P99 of a TPOT of ten tokens jump with the one prompt more that a step takes in: with
# steps 20 % longer the model's median falls by up to 26 %, while the mean rises by 15.8 % at least.
JUMPS = (0.35, 0.35)
THROUGHPUT = 0.02  # of it, beside what is added to a burst's whole duration

# Both layouts compute the same hash.
SAME: tuple[dict[str, Any], ...] = (
    {"metric": "layout_logprob_abs_diff_mean", "ceiling": 1e-6, "unit": "nats"},
    {"metric": "layout_top1_disagreement", "ceiling": 0.0, "unit": "ratio"},
)


def entries() -> Iterator[dict[str, Any]]:
    source = "acceptance/simulation/language.py: one hash in every layout"
    yield from ({"deployment": "simulated-*", **same, "source": source} for same in SAME)
    for deployment in load_deployments().values():
        if deployment.lane is not Lane.SIMULATED:
            continue
        for cell in cells(deployment, Tier.FULL):
            said = expected(deployment, cell.batch, cell.isl, cell.osl)
            output = said.output_throughput
            slower = round(THROUGHPUT + _added(cell) / (1000 * said.duration_s), 3)
            jumps = JUMPS if cell.workload == "prompt-heavy" else None
            rows = [
                (
                    *("ttft_mean_ms", said.ttft_mean_ms, "ms"),
                    *(EARLY, SHARE + _added(cell) / said.ttft_mean_ms),
                ),
                ("ttft_median_ms", said.ttft_median_ms, "ms", *_around_median(said, cell)),
                ("tpot_mean_ms", said.tpot_mean_ms, "ms", 0.1, 0.08),
                ("tpot_median_ms", said.tpot_median_ms, "ms", *(jumps or (0.1, 0.08))),
                ("tpot_p99_ms", said.tpot_p99_ms, "ms", *(jumps or (0.15, 0.15))),
                ("output_throughput", output, "tok/s", slower, 0.05),
                (
                    *("total_token_throughput", output * (cell.isl + cell.osl) / cell.osl),
                    *("tok/s", slower, 0.05),
                ),
                ("request_throughput", output / cell.osl, "req/s", slower, 0.05),
            ]
            for metric, value, unit, lower, upper in rows:
                yield {
                    "deployment": deployment.name,
                    "workload": cell.workload,
                    "batch": cell.nominal,
                    "metric": metric,
                    "baseline": float(f"{value:.5g}"),
                    "lower": lower,
                    "upper": float(f"{upper:.3g}"),
                    "unit": unit,
                    "source": SOURCE,
                }


def _added(cell: Cell) -> float:
    return ADDED_MS + REQUEST_MS * cell.batch


def _around_median(said: Expected, cell: Cell) -> tuple[float, float]:
    """Tolerances. A burst's first tokens come in steps: a request that just makes one, or misses
    it, moves the median by a step."""
    middle, (below, above) = said.ttft_median_ms, said.ttft_around_ms
    late = max((1 + SHARE) * middle, (1 + STEP) * above) + _added(cell)
    return round(max(EARLY, 1 - (1 - STEP) * below / middle), 3), late / middle - 1


def text() -> str:
    """The file."""
    return toml_text(HEADER, {"reference": entries()})


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
