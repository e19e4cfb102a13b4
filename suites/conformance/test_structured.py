"""Structured outputs: what binds an answer binds all of it, and its reasoning not at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.conformance.reasoning import cut_problems
from acceptance.conformance.said import said
from acceptance.conformance.structured import CHOICES, GRAMMAR_WORDS, schema_problems
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import (
    beyond_simulation,
    needs_reasoning,
    needs_training,
    specified,
)
from suites.conformance.tasks import PLAIN, asked, room

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.deployments.schema import Deployment
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

DIGITS = r"[0-9]{3}"
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["number", "text"]},
        "sure": {"type": "boolean"},
    },
    "required": ["kind", "sure"],
    "additionalProperties": False,
}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
GRAMMAR = "root ::= " + " | ".join(f'"{word}"' for word in GRAMMAR_WORDS)


def _within(content: str, allowed: tuple[str, ...]) -> list[str]:
    return [] if content.strip() in allowed else [f"{content!r} is none of {allowed}"]


def _digits(content: str) -> list[str]:
    fits = re.fullmatch(DIGITS, content.strip())
    return [] if fits else [f"{content!r} does not match {DIGITS}"]


# Each has an end, but for white space in JSON, which vLLM lets go on for ever whatever the request
# says of it (disable_any_whitespace is read from the command line alone, in 0.25.1 and 0.32.0).
CONSTRAINTS: dict[str, tuple[dict[str, Any], Callable[[str], list[str]]]] = {
    "regex": ({"structured_outputs": {"regex": DIGITS}}, _digits),
    "choice": (
        {"structured_outputs": {"choice": list(CHOICES)}},
        lambda content: _within(content, CHOICES),
    ),
    "grammar": (
        {"structured_outputs": {"grammar": GRAMMAR}},
        lambda content: _within(content, GRAMMAR_WORDS),
    ),
    "json": (
        {"structured_outputs": {"json": SCHEMA}},
        lambda content: schema_problems(content, SCHEMA),
    ),
}
ENDLESS = ("json",)
TOGETHER = Requests()
BOUND = {
    name: TOGETHER.whole("chat", **asked(PLAIN[-1], **changes))
    for name, (changes, _) in CONSTRAINTS.items()
}
SCHEMED = [TOGETHER.whole("chat", **asked(task, response_format=JSON_SCHEMA)) for task in PLAIN]
AN_OBJECT = TOGETHER.whole(
    "chat",
    **asked(
        PLAIN[0],
        response_format={"type": "json_object"},
        # A tiny model, which was taught no JSON, may go on with it to the end of its context.
        max_tokens=lambda it: 128 if it.server.deployment.model_is_generated else room(it),
    ),
)
CUT = Requests().whole("chat", max_tokens=4, structured_outputs={"choice": list(CHOICES)})


@check(53)
def test_json_schema(deployment: Deployment, answers: Answers, record_check: RecordCheck) -> None:
    """The content of every answer is JSON of the schema asked for, after any reasoning.

    Does not prove that what it says is right. Would have caught vendors' servers that K2's verifier
    found at 76 % of valid calls where the model's own API had 100 %.
    """
    needs_training(deployment)
    found = [said(answers.whole(request)) for request in SCHEMED]
    problems = [p for one in found for p in schema_problems(one.content, SCHEMA)]
    problems += [f"ended by {one.finish_reason}" for one in found if one.finish_reason != "stop"]
    specified(record_check, problems)


@check(54)
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraint(
    deployment: Deployment, answers: Answers, record_check: RecordCheck, name: str
) -> None:
    """The content is of the regex, choice, grammar or JSON schema asked for.

    Does not prove larger grammars. Would have caught the removed guided_ fields: accepted, ignored,
    and answered with any text.
    """
    beyond_simulation(deployment)
    # Without a parser it binds from the first token, whatever is known.
    if deployment.options.reasoning_parser or name in ENDLESS:
        needs_training(deployment)
    one = said(answers.whole(BOUND[name]))
    problems = CONSTRAINTS[name][1](one.content)
    problems += [] if one.finish_reason == "stop" else [f"ended by {one.finish_reason!r}"]
    specified(record_check, problems)


@check(54)
def test_json_object(deployment: Deployment, answers: Answers, record_check: RecordCheck) -> None:
    """With json_object the content is a JSON object, or the beginning of one where it was cut off.

    Does not prove any field of it. Would have caught JSON within a fence of Markdown.
    """
    needs_training(deployment)
    one = said(answers.whole(AN_OBJECT))
    problems = []
    if one.finish_reason == "length" and one.content.lstrip()[:1] != "{":
        problems.append(f"content begins {one.content[:40]!r}")
    if one.finish_reason != "length":
        problems += schema_problems(one.content, {"type": "object"})
    specified(record_check, problems)


@check(57)
def test_reasoning_is_free(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A constraint leaves the reasoning alone and binds what follows.

    Does not prove that thinking helps. Would have caught answers that are bound from their first
    token, so that the model cannot think, or never, because it does.
    """
    needs_reasoning(deployment, trained=True)
    problems = []
    for name, request in BOUND.items():
        one, holds = said(answers.whole(request)), CONSTRAINTS[name][1]
        problems += [] if one.reasoning.strip() else [f"{name}: no reasoning"]
        problems += [f"{name}: {p}" for p in holds(one.content)]
        if not holds(one.reasoning):
            problems.append(f"{name}: the reasoning is bound: {one.reasoning!r}")
    specified(record_check, problems)


@check(44, 57)
def test_cut_off_before_a_constraint(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A constrained answer that is cut off while it reasons has null content and says length: no
    half an answer, and no error.

    Does not prove how many tokens are enough. Would have caught clients that took the free text
    for the answer, since vLLM 0.32 binds nothing before the reasoning ends.
    """
    needs_reasoning(deployment)
    specified(record_check, cut_problems(answers.whole(CUT)))
