"""An engine that is killed from outside, as the kernel does when memory runs out.

It takes a server of its own, which nothing can be asked of afterwards; so it comes last, and only
with --tier full.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from acceptance.conformance.death import kill_engine
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.load.workloads import Tier
from fixtures.judging import not_applicable, unobservable
from fixtures.servers import start_server
from suites.checklist import check

if TYPE_CHECKING:
    import pytest

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run


@check(84, inform=True)
def test_killed_engine_is_told(
    server: Server,
    deployment: Deployment,
    run: Run,
    judge: Judge,
    pytestconfig: pytest.Config,
) -> None:
    """SIGKILL to an engine: /health says so, the API server ends with an exit code, and no process
    stays behind.

    Does not prove that clients hear of it. Would have caught a server that answers /health with 200
    for hours after its engine died (vllm#39863), and workers that keep the GPUs (vllm#55510).
    """
    if server.attached:
        unobservable("shutdown", "a server that was not started here is not ended here")
    if pytestconfig.option.tier != Tier.FULL:
        not_applicable("it takes a start of its own: --tier full")
    with ExitStack() as stack:
        started = start_server(deployment, run, pytestconfig, stack, suffix=".killed")
        assert started.custody is not None
        stack.callback(started.custody.end, deployment.budgets.stop)
        death = kill_engine(started)
    evidence = {"health": death.health, "seconds": death.seconds, "exit_code": death.code}
    judge(
        Measurement(
            name="killed_engine",
            value="; ".join(death.problems()) or "told, and gone",
            evidence=evidence,
        ),
        limit=Limit(kind=Kind.EXPECTED, expected="told, and gone", source="vllm PR#24897"),
        required=False,
    )
