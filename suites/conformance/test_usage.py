"""Usage counts what happened: people are billed and capacity is planned by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.conformance.answers import read_answer, usage_problems
from acceptance.conformance.bodies import PATHS, body
from acceptance.conformance.said import said
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import specified

if TYPE_CHECKING:
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

RENDERS = (
    *("model", "prompt", "messages", "add_special_tokens"),
    *("add_generation_prompt", "continue_final_message", "tools"),
)
TOGETHER = Requests()
KINDS = sorted(PATHS)
kinds = pytest.mark.parametrize("kind", KINDS)
COUNTED = {kind: TOGETHER.whole(kind, max_tokens=6, return_token_ids=True) for kind in KINDS}


@check(16)
@kinds
def test_usage(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """prompt_tokens is /tokenize's count, completion_tokens the number of token ids, and
    total_tokens their sum.

    Does not prove reasoning_tokens, which vLLM 0.32 leaves at 0 for R1 (vllm PR#49743). Would have
    caught tokens-against-text faults such as vllm#55486, where BOS tokens were counted, not shown.
    """
    answer = answers.whole(COUNTED[kind])
    prompt, tokens = tokenized(answers, body(kind, answers.model)), said(answer).tokens
    problems = [] if tokens else ["the answer has no token ids"]
    problems += usage_problems(
        answer.get("usage"), prompt=len(prompt), generated=len(tokens) if tokens else None
    )
    specified(record_check, problems)


@check(33)
@kinds
def test_prompt_is_rendered_alike(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """The prompt that is run has the ids that /tokenize gives for the same prompt or messages.

    Does not prove that the template is R1's. Would have caught a chat template that two parts of
    the server apply differently.
    """
    run = prompt_ids(answers.whole(COUNTED[kind]))
    expected = tokenized(answers, body(kind, answers.model))
    specified(record_check, [] if run == expected else [f"run {run}, tokenized {expected}"])


def prompt_ids(answer: dict[str, Any]) -> list[int] | None:
    """Of an answer that was asked for with return_token_ids."""
    found: list[int] | None = answer.get("prompt_token_ids")
    return found or answer["choices"][0].get("prompt_token_ids")


def tokenized(answers: Answers, asked: dict[str, Any]) -> list[int]:
    """What /tokenize makes of a request's prompt or messages."""
    known = {name: asked[name] for name in RENDERS if name in asked}
    found = read_answer(answers.client.post("/tokenize", json=known))
    tokens: list[int] = found["tokens"]
    assert found["count"] == len(tokens), f"/tokenize counts {found['count']} of {len(tokens)}"
    return tokens
