"""Requests that nobody thought of: made from the server's own schema."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from acceptance.conformance.fuzz import fuzz
from acceptance.serving.generation import generate
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.holding import beyond_simulation, shown, specified

if TYPE_CHECKING:
    from acceptance.conformance.fuzz import Fuzzed
    from acceptance.deployments.schema import Deployment
    from fixtures.judging import Judge, RecordCheck
    from suites.conformance.asking import Answers

SEED = 76
EXAMPLES = 2  # requests of each operation
SECONDS, TIMEOUT = 8.0, 10.0  # for all, and for one


@check(76)
def test_fuzz_ends_nothing(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """After requests made from the server's own schema, with a fixed seed, it is healthy and
    generates.

    Does not prove it of other seeds. Would have caught requests that end the engine, for everybody.
    """
    found = _fuzzed(deployment, answers)
    status = answers.client.get("/health").status_code
    generate(answers.server, answers.model, timeout=deployment.budgets.request)
    problems = [] if status == 200 else [f"/health answers {status}"]
    problems += [] if found.requests else ["no request was answered"]
    specified(record_check, problems)


@check(76, inform=True)
def test_fuzz_brings_no_error(deployment: Deployment, answers: Answers, judge: Judge) -> None:
    """Shows which of those requests bring a 5xx, or no answer in time.

    Does not prove that the others are answered rightly. Would have caught vllm#54116: 500 with an
    empty message.
    """
    found = _fuzzed(deployment, answers)
    problems = [*found.errors, *(f"{name}, no answer" for name in found.silent)]
    shown(judge, "server_errors", problems, f"openapi.json, seed {SEED}")


def _fuzzed(deployment: Deployment, answers: Answers) -> Fuzzed:
    beyond_simulation(deployment)
    if importlib.util.find_spec("schemathesis") is None:
        not_applicable("schemathesis is not installed here")
    return answers.once(_fuzz)


def _fuzz(answers: Answers) -> Fuzzed:
    return fuzz(
        answers.client.get("/openapi.json").json(),
        answers.client,
        answers.model,
        seed=SEED,
        examples=EXAMPLES,
        seconds=SECONDS,
        timeout=TIMEOUT,
    )
