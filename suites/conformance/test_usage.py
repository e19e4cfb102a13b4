"""Usage counts what happened: people are billed and capacity is planned by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.answers import read_answer, usage_problems
from acceptance.conformance.bodies import PATHS, body
from acceptance.conformance.said import said
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck


@pytest.mark.parametrize("kind", sorted(PATHS))
def test_usage(server: Server, http: httpx.Client, record_check: RecordCheck, kind: str) -> None:
    """prompt_tokens is /tokenize's count, completion_tokens the number of token ids, and
    total_tokens their sum.

    Does not prove reasoning_tokens, which vLLM 0.32 leaves at 0 for R1 (vllm PR#49743). Would have
    caught tokens-against-text faults such as vllm#55486, where BOS tokens were counted, not shown.
    """
    asked = body(kind, server.model, return_token_ids=True)
    answer = read_answer(http.post(PATHS[kind], json=asked))
    prompt = _tokenize(http, asked)
    tokens = said(answer).tokens
    problems = [] if tokens else ["the answer has no token ids"]
    problems += usage_problems(
        answer.get("usage"), prompt=len(prompt), generated=len(tokens) if tokens else None
    )
    specified(record_check, problems)


@pytest.mark.parametrize("kind", sorted(PATHS))
def test_prompt_is_rendered_alike(
    server: Server, http: httpx.Client, record_check: RecordCheck, kind: str
) -> None:
    """The prompt that is run has the ids that /tokenize gives for the same prompt or messages.

    Does not prove that the template is R1's. Would have caught a chat template that two parts of
    the server apply differently.
    """
    asked = body(kind, server.model, max_tokens=1, return_token_ids=True)
    answer = read_answer(http.post(PATHS[kind], json=asked))
    run = answer.get("prompt_token_ids") or answer["choices"][0].get("prompt_token_ids")
    expected = _tokenize(http, asked)
    specified(record_check, [] if run == expected else [f"run {run}, tokenized {expected}"])


def _tokenize(http: httpx.Client, asked: dict[str, object]) -> list[int]:
    known = {name: asked[name] for name in ("model", "prompt", "messages") if name in asked}
    found = read_answer(http.post("/tokenize", json=known))
    tokens: list[int] = found["tokens"]
    assert found["count"] == len(tokens), f"/tokenize counts {found['count']} of {len(tokens)}"
    return tokens
