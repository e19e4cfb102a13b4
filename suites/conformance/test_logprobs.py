"""Log-probabilities are what their name says. None of this proves the model's numbers right: see
correctness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.answers import read_answer
from acceptance.conformance.bodies import CHAT, COMPLETIONS, PROMPT, chat, completion
from acceptance.conformance.logprobs import (
    bytes_problems,
    logprob_problems,
    offset_problems,
    prompt_problems,
    scored_chat,
    scored_completion,
)
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck

TOP = 5
MOST = 20  # vLLM's default --max-logprobs


@pytest.mark.parametrize("top", [TOP, MOST])
def test_chat_logprobs(
    server: Server, http: httpx.Client, record_check: RecordCheck, top: int
) -> None:
    """One entry a token; each at most 0, its list sorted, no more than probability 1 in all, the
    greedy choice at its head, and bytes that are its text.

    Does not prove that they are this model's. Would have caught log-probabilities that no
    distribution has; vllm#53411 reports inflated ones beside wrong output.
    """
    asked = chat(server.model, logprobs=True, top_logprobs=top)
    answer = read_answer(http.post(CHAT, json=asked))
    choice, generated = answer["choices"][0], answer["usage"]["completion_tokens"]
    problems = logprob_problems(scored_chat(choice), tokens=generated, top=top)
    specified(record_check, problems + bytes_problems(choice))


def test_completion_logprobs(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """As of chat; and the tokens put together are the text, each where text_offset says.

    Does not prove that they are this model's. Would have caught offsets that point a reader at the
    wrong token.
    """
    asked = completion(server.model, logprobs=TOP)
    answer = read_answer(http.post(COMPLETIONS, json=asked))
    choice, generated = answer["choices"][0], answer["usage"]["completion_tokens"]
    problems = logprob_problems(scored_completion(choice), tokens=generated, top=TOP)
    specified(record_check, problems + offset_problems(choice))


def test_prompt_logprobs(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """prompt_logprobs has nothing for the first token and a log-probability for each other, which
    is what correctness compares servers by.

    Does not prove them right. Would have caught a prompt scored after it was cut or shifted.
    """
    tokenized = read_answer(http.post("/tokenize", json={"model": server.model, "prompt": PROMPT}))
    prompt = tokenized["tokens"]
    asked = completion(server.model, prompt=prompt, max_tokens=1, prompt_logprobs=1)
    answer = read_answer(http.post(COMPLETIONS, json=asked))
    specified(record_check, prompt_problems(answer["choices"][0].get("prompt_logprobs"), prompt))
