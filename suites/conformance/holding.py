"""How a conformance test says what it found, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Kind, Limit, Measurement
from fixtures.judging import not_applicable, unobservable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.differences import Comparison
    from fixtures.judging import Judge, RecordCheck

AS_SPECIFIED = "as specified"


def specified(record_check: RecordCheck, problems: Sequence[str]) -> None:
    """Fails naming every problem."""
    actual = "; ".join(problems) or AS_SPECIFIED
    record_check(expected=AS_SPECIFIED, actual=actual)
    assert not problems, actual


def shown(judge: Judge, name: str, problems: Sequence[str], source: str) -> None:
    """Shows every problem and rejects nobody. source: what says how it should be."""
    judge(
        Measurement(name=name, value="; ".join(problems) or AS_SPECIFIED),
        limit=Limit(kind=Kind.EXPECTED, expected=AS_SPECIFIED, source=source),
        required=False,
    )


def beyond_simulation(deployment: Deployment) -> None:
    """Skips in the lane whose server imitates no more of the API than load and identity need."""
    if deployment.lane is Lane.SIMULATED:
        not_applicable("the simulation does not imitate this part of the API")


def needs_reasoning(deployment: Deployment, *, trained: bool = False) -> None:
    """Skips where no parser splits off reasoning, or, if that matters, nothing was learned."""
    if not deployment.options.reasoning_parser:
        not_applicable("the deployment has no reasoning parser")
    if trained:
        needs_training(deployment)


def needs_tools(deployment: Deployment, *, trained: bool = False) -> None:
    """Skips where no parser reads tool calls, or, if that matters, nothing was learned."""
    if not deployment.options.tool_call_parser:
        not_applicable("the deployment has no parser of tool calls")
    if trained:
        needs_training(deployment)


def needs_training(deployment: Deployment) -> None:
    """Skips where answers mean nothing."""
    if not deployment.trained:
        not_applicable("the weights learned nothing, so no answer is right or wrong")


def as_asked(
    comparisons: Mapping[str, Comparison], name: str, record_check: RecordCheck, **evidence: object
) -> None:
    """Fails unless the live server is what was asked in this one thing. evidence: recorded."""
    found = comparisons.get(name)
    if found is None:
        not_applicable(f"the deployment leaves {name} to vLLM")
    if not found.observable:
        unobservable("log", f"{name} is told by the server's log alone")
    record_check(expected=found.asked, actual=found.live, **evidence)
    assert found.agrees, f"{name}: asked {found.asked}, the server says {found.live}"
