"""Requests that cannot be served are refused at once and in words, and harm nobody else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from acceptance.conformance import refused
from acceptance.conformance.bodies import PATHS, body
from acceptance.conformance.limits import limits
from acceptance.conformance.refusals import QUICK, Refusal, refusal_problems
from acceptance.errors import ServerError
from acceptance.serving.client import LAST
from acceptance.serving.generation import generate
from reports.exchanges import recall
from suites.checklist import check
from suites.conformance.holding import beyond_simulation, shown, specified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge, RecordCheck
    from suites.conformance.asking import Answers

PATIENCE = limits()["hostile"]
HOSTILE = tuple(refused.hostile())
# What tells a stranger where and on what the server runs.
LEAK = re.compile(
    r"(?<![\w.])/(?:home|root|usr|opt|var|tmp|srv|data|mnt)/\S+|\b\d+(?:\.\d+){3}\b|\.py\b"
)


def each(cases: Sequence[Refusal]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("refusal", cases, ids=lambda refusal: refusal.name)


@dataclass(frozen=True)
class Refused:
    """answers: by name, or the error that came instead. health: of the server after each. after:
    why it generates no more, empty when it does."""

    answers: dict[str, httpx.Response | httpx.HTTPError]
    health: dict[str, int]
    after: str


@check(66)
@each(refused.UNKNOWN_MODEL)
def test_unknown_model(answers: Answers, record_check: RecordCheck, refusal: Refusal) -> None:
    """A model that is not served is 404, with a JSON error, whole and streamed.

    Does not prove what an alias does. Would have caught answers by another model than was asked.
    """
    _judge(answers, record_check, refusal)


@check(67)
@each(refused.NO_REQUEST)
def test_no_request(answers: Answers, record_check: RecordCheck, refusal: Refusal) -> None:
    """What is no request gets a 4xx with a JSON error that says something, within 2 s; then the
    server still generates.

    Does not prove that every bad request is refused: vLLM 0.32 lets unknown fields pass. Would
    have caught vllm PR#53357, where a plain ValueError became 500.
    """
    _judge(answers, record_check, refusal)


@check(68, 29, 26)
@each(refused.OUT_OF_RANGE)
def test_out_of_range(answers: Answers, record_check: RecordCheck, refusal: Refusal) -> None:
    """A number out of its range is refused as what is no request is.

    Does not prove where each range ends. Would have caught a temperature below zero that reached
    the sampler, and every request in its batch.
    """
    _judge(answers, record_check, refusal)


@check(40, 42)
@each(refused.SCORES)
def test_scores_out_of_range(
    deployment: Deployment,
    answers: Answers,
    record_check: RecordCheck,
    refusal: Refusal,
) -> None:
    """More log-probabilities than --max-logprobs, and those of a prompt in a stream, are refused.

    Does not prove the limit to be the right one. Would have caught a request for the whole
    vocabulary at each token, which takes the server's memory.
    """
    if "21" not in str(refusal.changes):
        beyond_simulation(deployment)
    _judge(answers, record_check, refusal)


@check(70)
@each(refused.TOKEN_IDS)
def test_token_ids(answers: Answers, record_check: RecordCheck, refusal: Refusal) -> None:
    """Token ids that the vocabulary does not have are refused.

    Does not prove it of ids that only the embedding has. Would have caught an index beyond the
    embedding, which ends a GPU worker by an assertion in a kernel.
    """
    _judge(answers, record_check, refusal)


@check(71)
@each(refused.NO_TEXT)
def test_no_text(answers: Answers, record_check: RecordCheck, refusal: Refusal) -> None:
    """Bytes that are no text, and a content type that is not JSON's, are refused.

    Does not prove every encoding. Would have caught a UnicodeDecodeError that became 500.
    """
    _judge(answers, record_check, refusal)


@check(73)
@each(refused.IMAGES)
def test_image(answers: Answers, record_check: RecordCheck, refusal: Refusal) -> None:
    """An image is refused by a model that sees none.

    Does not prove that nothing was fetched. Would have caught an answer as if the image had been
    seen.
    """
    _judge(answers, record_check, refusal)


@check(55, 56)
@each(refused.CONSTRAINTS)
def test_constraint_is_none(
    deployment: Deployment,
    answers: Answers,
    record_check: RecordCheck,
    refusal: Refusal,
) -> None:
    """A regex, schema or grammar that is none, and two constraints at once, are refused within 2 s.

    Does not prove that every valid one is compiled. Would have caught a grammar that failed in the
    engine, and took the engine with it.
    """
    beyond_simulation(deployment)
    _judge(answers, record_check, refusal)


@check(67)
@each(refused.TOOLS)
def test_tools_are_none(
    deployment: Deployment,
    answers: Answers,
    record_check: RecordCheck,
    refusal: Refusal,
) -> None:
    """Tools that are none, and a choice among no tools, are refused.

    Does not prove anything of calls. Would have caught an agent's empty list taken for a plain
    chat.
    """
    beyond_simulation(deployment)
    _judge(answers, record_check, refusal)


@check(75)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(
    deployment: Deployment,
    answers: Answers,
    record_check: RecordCheck,
    name: str,
) -> None:
    """A megabyte of garbage, ten thousand strings or tools, brackets without end, a schema of a
    hundred levels: an answer comes in time, it is no 5xx, and the server still generates.

    Does not prove a flood of them. Would have caught a parser that recursed to its death, or a
    grammar compiled for minutes while nobody else was served.
    """
    beyond_simulation(deployment)
    case = refused.hostile()[name]
    try:
        answer = _send(answers, case)
        seconds = answer.elapsed.total_seconds()
        problems = [f"HTTP {answer.status_code}: {answer.text[:200]}"] * (answer.status_code >= 500)
        problems += [f"took {seconds:.1f} s"] * (seconds > PATIENCE)
    except httpx.HTTPError as error:
        problems = [f"no answer: {error!r}"]
    specified(record_check, problems + _dead(answers.server))


@check(11, inform=True)
def test_errors_leak_nothing(answers: Answers, judge: Judge) -> None:
    """No error text names a path, an address or a source file of the server.

    Does not prove it of errors that nobody provoked. Would have caught tracebacks sent to clients.
    """
    found = answers.once(_refused_all)
    texts = {n: a.text for n, a in found.answers.items() if isinstance(a, httpx.Response)}
    problems = [f"{n}: {leak[0]!r}" for n, text in texts.items() if (leak := LEAK.search(text))]
    shown(judge, "leaks_in_errors", problems, "what a client needs to know")


def _judge(answers: Answers, record_check: RecordCheck, refusal: Refusal) -> None:
    """The refusal's own answer, the health after it, and one generation after all of them."""
    found = answers.once(_refused_all)
    answer = found.answers[refusal.name]
    if isinstance(answer, httpx.HTTPError):
        problems = [f"no answer: {answer!r}"]
    else:
        recall(answer)
        problems = refusal_problems(answer, refusal, within=QUICK)
    if found.health[refusal.name] != 200:
        problems.append(f"/health answers {found.health[refusal.name]} after it")
    if found.after:
        problems.append(f"after all refusals: {found.after}")
    specified(record_check, problems)


def _refused_all(answers: Answers) -> Refused:
    """Everything that must be refused, sent one after the other."""
    sent: dict[str, httpx.Response | httpx.HTTPError] = {}
    health = {}
    for refusal in refused.REFUSALS:
        try:
            sent[refusal.name] = _send(answers, refusal)
        except httpx.HTTPError as error:
            sent[refusal.name] = error
        health[refusal.name] = _health(answers)
    return Refused(sent, health, "; ".join(_dead(answers.server)))


def _send(answers: Answers, refusal: Refusal) -> httpx.Response:
    path, client = PATHS[refusal.kind], answers.client
    if refusal.raw is not None:
        sent = {"Content-Type": refusal.content_type, **LAST}
        return client.post(path, content=refusal.raw, headers=sent)
    asked = body(refusal.kind, answers.model, **(refusal.changes or {}))
    return client.post(path, json=asked, headers=LAST)


def _health(answers: Answers) -> int:
    try:
        return answers.client.get("/health").status_code
    except httpx.HTTPError:
        return 0


def _dead(server: Server) -> list[str]:
    """Why it generates no more; nothing when it does."""
    try:
        generate(server, server.model, timeout=server.deployment.budgets.request)
    except ServerError as error:
        return [f"the server generates no more: {error.happened}"]
    return []
