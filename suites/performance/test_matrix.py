"""The recipe's benchmark matrix: prompt-heavy, decode-heavy and balanced, at growing batch sizes.

Every cell is measured by vLLM's own client, after warm-up, with prefix caching off; one of a single
request several times, of which the median is judged. Before any number is judged the cell must be
valid (acceptance/load/validity.py); one that is not is measured once more, and if it is invalid
again, so is every test here. A cell whose requests cannot all run at once queues: its latencies are
waiting times, which are shown and keep no verdict. Numbers are judged against references; one
without a reference is shown as UNGATED and is never a pass. Where a deployment's lane is no
instrument for speed (a shared CPU), speed is shown and keeps no verdict; completion and counts
still do.

None of this proves that the tokens are right: see suites/correctness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.judging.judgement import Kind, Limit
from fixtures.judging import unobservable

if TYPE_CHECKING:
    import pytest

    from acceptance.deployments.schema import Deployment
    from fixtures.cells import JudgeCell, MeasuredCell


def test_every_request_completes(cell_run: MeasuredCell, judge_cell: JudgeCell) -> None:
    """All requests of the batch are answered.

    Does not prove that a larger batch would be. Would have caught vllm#28224 (a data-parallel
    server that hung near the end of a batch, when one rank had run dry).
    """
    limit = Limit(
        kind=Kind.EXPECTED,
        expected=cell_run.cell.batch,
        unit="requests",
        source="batch size of the cell",
    )
    judge_cell("successful_requests", limit=limit)


def test_every_token_is_generated(cell_run: MeasuredCell, judge_cell: JudgeCell) -> None:
    """Batch x output length tokens come back: nothing ends early.

    Does not prove that they make sense. Would have caught a server that breaks streams after their
    first token, which the client counts as successes.
    """
    limit = Limit(
        kind=Kind.EXPECTED,
        expected=cell_run.cell.output_tokens,
        unit="tokens",
        source="batch size x output length of the cell",
    )
    judge_cell("generated_tokens", limit=limit)


def test_every_validity_rule_was_observed(
    cell_run: MeasuredCell, request: pytest.FixtureRequest
) -> None:
    """The server's log was there to be searched for compilation and errors during the cell.

    Does not prove that the cell is valid, only that no rule went unseen.
    """
    if cell_run.unobserved:
        unobservable("log", f"rules not looked at: {', '.join(cell_run.unobserved)}", request)


def test_throughput(judge_cell: JudgeCell, deployment: Deployment) -> None:
    """Tokens and requests per second over the whole burst, ramp and drain included.

    Does not prove a rate that could be sustained: the batch arrives at once and ends. Would have
    caught vllm#41603 (throughput down by 38 % across versions).
    """
    speeds = ("output_throughput", "total_token_throughput", "request_throughput")
    judge_cell(*speeds, required=deployment.scale.speed_gated)


def test_time_to_first_token(judge_cell: JudgeCell, deployment: Deployment) -> None:
    """TTFT of a burst: at a large batch it is mostly the wait for the prompts ahead.

    Does not prove the latency of steady traffic. Would have caught vllm#28887 (expert parallelism
    slower than tensor parallelism on 8xH200, by a high TTFT).
    """
    gated = deployment.scale.speed_gated
    judge_cell("ttft_mean_ms", "ttft_median_ms", required=gated, latency=True)


def test_time_per_output_token(judge_cell: JudgeCell, deployment: Deployment) -> None:
    """TPOT after the first token, of each request.

    Does not prove smoothness: one long stall hides in the mean of many tokens. Would have caught
    vllm#23752 (data parallel with fewer requests than ranks three times slower per token).
    """
    gated = deployment.scale.speed_gated
    judge_cell("tpot_mean_ms", "tpot_median_ms", "tpot_p99_ms", required=gated, latency=True)


def test_other_metrics(judge_cell: JudgeCell) -> None:
    """The recipe's other numbers: recorded, judged where a reference exists, never required.

    P99 of TTFT is the slowest request of one burst, and spreads too far to gate from one run. ITL
    is per chunk: with several tokens a chunk it grows while nothing is slower (vllm#27485). Input
    tokens gate through the rule input-tokens. Goodput counts requests within MLPerf's constraints
    for R1: TTFT 2 s and TPOT 80 ms (server), 1.5 s and 15 ms (interactive).
    """
    judge_cell("duration_s", "input_tokens", required=False)
    judge_cell(
        "ttft_p99_ms",
        *("itl_mean_ms", "itl_median_ms", "itl_p99_ms"),
        *("e2el_mean_ms", "e2el_median_ms", "e2el_p99_ms"),
        *("goodput_server", "goodput_interactive"),
        required=False,
        latency=True,
    )
