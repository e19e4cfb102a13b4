"""Goodput: requests a second that meet a service level, by the constraints MLPerf sets for R1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.judging.judgement import Frozen

if TYPE_CHECKING:
    from acceptance.load.result import BenchResult


class Constraint(Frozen):
    """A service level of one request: TTFT and mean TPOT in ms, both inclusive."""

    name: str
    ttft_ms: float
    tpot_ms: float
    source: str


MLPERF = "MLPerf Inference submission checker, deepseek-r1, P99 constraints of scenario "
SERVER = Constraint(name="server", ttft_ms=2000, tpot_ms=80, source=MLPERF + "Server")
INTERACTIVE = Constraint(
    name="interactive", ttft_ms=1500, tpot_ms=15, source=MLPERF + "Interactive (v6.0)"
)
CONSTRAINTS = (SERVER, INTERACTIVE)


def goodput(result: BenchResult, constraint: Constraint) -> float:
    """Requests per second of a cell that meet the constraint; failed ones do not. The tool takes
    one constraint a run, so the second is computed from its per-request lists, by its rules."""
    good = sum(
        ttft * 1000 <= constraint.ttft_ms and tpot * 1000 <= constraint.tpot_ms
        for ttft, tpot in zip(result.good_ttfts(), result.good_tpots(single=0.0), strict=True)
    )
    return good / result.duration
