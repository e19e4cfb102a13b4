"""Is it still right after all that load, and without its graphs.

The first of these runs when the benchmark matrix has, on the same server process; the second when
that server has ended, in its place.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from acceptance.correctness.account import Account
from acceptance.correctness.compare import agreement
from acceptance.correctness.scoring import greedy, score
from acceptance.deployments.schema import Lane
from acceptance.load.workloads import Tier
from acceptance.serving.client import client
from fixtures.judging import not_applicable, unobservable
from fixtures.servers import start_server
from suites.correctness.holding import against_itself, agree, between
from suites.correctness.test_decode import judge_splits

if TYPE_CHECKING:
    import httpx

    from acceptance.correctness.floor import Floor
    from acceptance.correctness.scoring import Scored
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run


@pytest.fixture
def after_matrix() -> None:
    """Says that the test runs when the matrix has (fixtures/correctness.py)."""


@pytest.fixture
def after_server() -> None:
    """Says that the test runs when the session's server has ended (fixtures/correctness.py)."""


@pytest.mark.usefixtures("after_matrix")
def test_tokens_are_the_same_after_the_matrix(
    server: Server,
    bulk: httpx.Client,
    scored: list[Scored],
    account: Account,
    prompts: dict[str, list[int]],
    floor: Floor,
    judge: Judge,
) -> None:
    """After the benchmark matrix the same server process says what it said before.

    Does not prove anything of days of load. Would have caught sglang#17162 and vllm PR 28377
    (garbled after experts were moved for balance), and state that load corrupts.
    """
    again = score(bulk, server.model, prompts)
    agree(judge, "after", agreement(scored, again), against_itself(server.deployment.precision))
    given = {one.name: list(one.prompt) for one in account.greedy}
    count = len(account.greedy[0].tokens)
    said = greedy(bulk, server.model, given, count, concurrent=len(given))
    judge_splits(judge, floor, Account(again, said), account, "before the matrix")


@pytest.mark.usefixtures("after_server")
def test_eager_chooses_as_graphs_do(
    server: Server,
    deployment: Deployment,
    account: Account,
    prompts: dict[str, list[int]],
    floor: Floor,
    run: Run,
    judge: Judge,
    pytestconfig: pytest.Config,
) -> None:
    """A second start without compilation and CUDA graphs says what the first one said.

    Does not prove either right. Would have caught vllm#31840 (R1 FP4 wrong with CUDA graphs only).
    """
    if deployment.options.enforce_eager:
        not_applicable("the deployment serves eagerly itself")
    if deployment.lane is Lane.SIMULATED:
        not_applicable("the simulation has no graphs")
    if pytestconfig.option.tier != Tier.FULL:
        not_applicable(
            f"a second start takes {deployment.expected_minutes.start:g} minutes: --tier full"
        )
    if server.attached or server.ended is None:
        unobservable("eager", "the first server still holds the GPUs")
    options = deployment.options.model_copy(update={"enforce_eager": True})
    eager = deployment.model_copy(update={"options": options})
    with ExitStack() as stack:
        started = start_server(eager, run, pytestconfig, stack, suffix=".eager")
        assert started.custody is not None
        stack.callback(started.custody.end, deployment.budgets.stop)
        http = stack.enter_context(client(started, 4 * deployment.budgets.request))
        given = {one.name: list(one.prompt) for one in account.greedy}
        count = len(account.greedy[0].tokens)
        said = Account(
            score(http, started.model, prompts),
            greedy(http, started.model, given, count, concurrent=len(given)),
        )
    found = agreement(account.scored, said.scored)
    agree(judge, "eager", found, between(floor, run, deployment), against="graphs")
    judge_splits(judge, floor, said, account, "graphs")
