"""The performance checks: a cell whose numbers hold the recipe, and cells that do not, or that may
not be judged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from proofs import broken, healthy
from suites_world import World, deployment, plain

import suites.performance.test_matrix as matrix
from acceptance.judging.judgement import Outcome, Window
from acceptance.load.cellrun import CellRun
from acceptance.load.engine import ClientLoad
from acceptance.load.measurements import measurements
from acceptance.load.result import BenchResult
from acceptance.load.validity import unobserved
from acceptance.load.warmup import WarmRule, WarmUp
from acceptance.load.workloads import make_cell
from fixtures import cells
from fixtures.cells import Attempt, JudgeCell, MeasuredCell
from fixtures.judging import OptionalSkip
from reports.checks import JudgementFailed

sys.path.append(str(Path(__file__).parents[1] / "load"))
from load_fakes import counted, tool_json

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment

COUNTS = (matrix.test_every_request_completes, matrix.test_every_token_is_generated)
SPEEDS = (
    matrix.test_throughput,
    matrix.test_time_to_first_token,
    matrix.test_time_per_output_token,
)
# TTFT 100 ms, TPOT and ITL 10 ms, 1000 tokens in 0.5 s: all hold the recipe.
R1 = "fp8-8xh200-tp-ep"


def measured(world: World, *edits: dict[str, Any], log: bool = True) -> MeasuredCell:
    """The cell of the recipe's numbers, with an edit of the tool's file for each attempt. The
    server's own histograms tell the same."""
    cell = make_cell(world.deployment, "prompt-heavy-b1")
    server_log = world.run_dir / "server.log"
    server_log.write_text("(APIServer pid=1) INFO 01-01 00:00:01 [a.py:1] served\n")
    attempts = []
    for number, edit in enumerate(edits or ({},), 1):
        data = tool_json(cell.batch, cell.isl, cell.osl) | edit
        run = CellRun(
            cell=cell,
            lane=world.deployment.lane.value,
            speed_gated=world.deployment.scale.speed_gated,
            ranks=world.deployment.layout.data,
            attempt=number,
            window=Window(start=10, end=10.5),
            argv=("vllm", "bench", "serve"),
            client=ClientLoad(lag_p99_ms=1.0, lag_max_ms=3.0, cpu_share=0.2),
            result_file=world.run_dir / "cell.json",
            client_log=world.run_dir / "client.log",
            server_log=server_log if log else None,
            log_span=(0, server_log.stat().st_size),
            before=counted(0, 0),
            after=counted(
                data["total_output_tokens"], data["completed"], ttft=data["mean_ttft_ms"] / 1000
            ),
            warmup=WarmUp(
                rule=WarmRule(),
                requests=cell.batch,
                isl=cell.isl,
                osl=cell.osl,
                waves=(1.0, 1.0),
                steady=True,
            ),
            result=BenchResult.model_validate(data),
        )
        attempts.append(Attempt((run,), measurements((run,))))
    return MeasuredCell(cell, tuple(attempts), unobserved(attempts[-1].runs[-1]))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(deployment(R1), tmp_path)


def check(one: Any, world: World, cell_run: MeasuredCell) -> None:
    """Calls a check of the matrix with what it names, judged as in a run."""
    judge_cell: JudgeCell = plain(cells.judge_cell)(cell_run, world.judge)
    known: dict[str, Any] = {
        "cell_run": cell_run,
        "judge_cell": judge_cell,
        "deployment": world.deployment,
        "request": world.request,
    }
    names = one.__code__.co_varnames[: one.__code__.co_argcount]
    one(**{name: known[name] for name in names})


@healthy(
    matrix.test_every_request_completes,
    matrix.test_every_token_is_generated,
    matrix.test_every_validity_rule_was_observed,
    matrix.test_throughput,
    matrix.test_time_to_first_token,
    matrix.test_time_per_output_token,
    matrix.test_other_metrics,
)
def test_a_cell_that_holds_the_recipe(world: World) -> None:
    cell_run = measured(world)
    for one in (*COUNTS, *SPEEDS, matrix.test_other_metrics):
        check(one, world, cell_run)
    check(matrix.test_every_validity_rule_was_observed, world, cell_run)
    gated = {
        *("successful_requests", "generated_tokens"),
        *("ttft_mean_ms", "tpot_mean_ms", "itl_p99_ms", "output_throughput"),
    }
    assert {n for n, outcome in world.outcomes.items() if outcome is Outcome.PASS} == gated
    shown = {name for name, judged in world.judged.items() if not judged.required}
    assert "itl_p99_ms" in shown
    assert not gated & shown - {"itl_p99_ms"}
    assert {world.outcomes[name] for name in world.outcomes if name not in gated} == {
        Outcome.UNGATED
    }


@broken(matrix.test_every_request_completes, matrix.test_every_token_is_generated)
@pytest.mark.parametrize("one", COUNTS, ids=lambda one: one.__name__)
def test_requests_that_failed(world: World, one: Any) -> None:
    """The tool ends with exit code 0 and zeros everywhere."""
    nothing = {"completed": 0, "failed": 1, "total_output_tokens": 0, "output_lens": [0]}
    with pytest.raises(JudgementFailed) as failed:
        check(one, world, measured(world, nothing))
    assert set(world.outcomes.values()) == {Outcome.INVALID}
    assert "requests-completed: 0 of 1 requests completed" in str(failed.value)


@broken(matrix.test_every_token_is_generated)
def test_tokens_that_are_missing(world: World) -> None:
    """A stream that breaks after its first token counts as a success to the tool."""
    with pytest.raises(JudgementFailed, match="output-length: 1 of 1 not of 1000 tokens"):
        check(
            matrix.test_every_token_is_generated,
            world,
            measured(world, {"output_lens": [1], "total_output_tokens": 1}),
        )


@broken(matrix.test_every_request_completes, matrix.test_every_token_is_generated)
@pytest.mark.parametrize(
    ("one", "metric"),
    [
        (matrix.test_every_request_completes, "successful_requests"),
        (matrix.test_every_token_is_generated, "generated_tokens"),
    ],
)
def test_counts_are_judged_even_where_no_rule_is_broken(
    world: World, one: Any, metric: str
) -> None:
    """The limit itself, apart from the rules that watch over the same thing."""
    cell_run = measured(world)
    (attempt,) = cell_run.attempts
    short = attempt.by_name[metric]
    assert isinstance(short.value, int)
    attempt.by_name[metric] = short.model_copy(update={"value": short.value - 1})
    with pytest.raises(JudgementFailed):
        check(one, world, cell_run)
    assert world.outcomes == {metric: Outcome.FAIL}


@broken(matrix.test_throughput, matrix.test_time_to_first_token, matrix.test_time_per_output_token)
@pytest.mark.parametrize(
    ("one", "edit", "metric"),
    [
        (matrix.test_throughput, {"output_throughput": 57.0}, "output_throughput"),
        (matrix.test_time_to_first_token, {"mean_ttft_ms": 600.0}, "ttft_mean_ms"),
        (matrix.test_time_per_output_token, {"mean_tpot_ms": 17.0}, "tpot_mean_ms"),
    ],
)
def test_a_limit_that_is_crossed(
    world: World, one: Any, edit: dict[str, float], metric: str
) -> None:
    with pytest.raises(JudgementFailed, match=metric):
        check(one, world, measured(world, edit))
    assert world.outcomes[metric] is Outcome.FAIL
    limit = world.judged[metric].limit
    assert limit is not None
    assert "vllm-project/recipes" in limit.source


@broken(matrix.test_throughput, matrix.test_time_to_first_token, matrix.test_time_per_output_token)
@pytest.mark.parametrize("one", SPEEDS, ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    "edit",
    [
        {"failed": 1, "errors": ["Bad Gateway"]},
        {"total_input_tokens": 9000},
        {"mean_ttft_ms": 0.0, "mean_tpot_ms": 0.0, "output_throughput": 0.0},
    ],
    ids=["a failed request", "other prompts", "zeros"],
)
def test_a_cell_that_may_not_be_judged(world: World, one: Any, edit: dict[str, Any]) -> None:
    with pytest.raises(JudgementFailed):
        check(one, world, measured(world, edit))
    assert Outcome.INVALID in world.outcomes.values()
    assert Outcome.PASS not in {
        outcome for name, outcome in world.outcomes.items() if "failed" in edit or "mean" in name
    }


@broken(matrix.test_other_metrics)
def test_what_is_only_shown_is_recorded_as_it_is(world: World) -> None:
    """It fails no test and rejects no run; the record says how far beyond its limit it is."""
    check(matrix.test_other_metrics, world, measured(world, {"p99_itl_ms": 30.0}))
    assert world.outcomes["itl_p99_ms"] is Outcome.UNGATED
    assert (world.judged["itl_p99_ms"].margin or 0) < 0
    check(matrix.test_other_metrics, world, measured(world, {"failed": 1, "errors": ["x"]}))
    assert set(world.outcomes.values()) == {Outcome.INVALID}
    assert not any(judged.required for judged in world.judged.values())


@broken(matrix.test_every_validity_rule_was_observed)
def test_a_rule_that_nobody_could_look_at(world: World) -> None:
    cell_run = measured(world, log=False)
    with pytest.raises(pytest.skip.Exception, match="log is not observable") as skip:
        check(matrix.test_every_validity_rule_was_observed, world, cell_run)
    assert not isinstance(skip.value, OptionalSkip)
    assert "jit-or-error-in-window" in str(skip.value)


def test_the_attempt_that_counts_is_the_last_and_both_are_recorded(world: World) -> None:
    invalid = {"failed": 1, "errors": ["Bad Gateway"]}
    check(matrix.test_throughput, world, measured(world, invalid, {}))
    attempts = [(r.attempt, r.judgement.outcome) for r in world.records]
    assert (1, Outcome.INVALID) in attempts
    assert (2, Outcome.PASS) in attempts
    with pytest.raises(JudgementFailed):
        check(matrix.test_throughput, world, measured(world, {}, invalid))


@pytest.mark.parametrize("one", SPEEDS, ids=lambda one: one.__name__)
def test_where_a_lane_is_no_instrument_speed_is_shown(world: World, one: Any) -> None:
    slow: Deployment = deployment(R1, scale={"speed_gated": False})
    world.deployment = slow
    check(one, world, measured(world))
    assert not any(judged.required for judged in world.judged.values())
