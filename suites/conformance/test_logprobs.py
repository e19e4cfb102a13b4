"""Log-probabilities are what their name says. None of this proves the model's numbers right: see
correctness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.conformance.answers import read_answer
from acceptance.conformance.bodies import COMPLETIONS, PROMPT, completion
from acceptance.conformance.logprobs import (
    asked_ids_problems,
    bytes_problems,
    echo_problems,
    logprob_problems,
    offset_problems,
    prompt_problems,
    scored_chat,
    scored_completion,
)
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import beyond_simulation, shown, specified
from suites.conformance.test_usage import tokenized

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from fixtures.judging import Judge, RecordCheck
    from suites.conformance.asking import Answers

TOP = 5
MOST = 20  # vLLM's default --max-logprobs
TOPS = [0, TOP, MOST]
ASKED_IDS = [5, 17, 300]  # ids that every vocabulary has

TOGETHER = Requests()
CHAT = {top: TOGETHER.whole("chat", logprobs=True, top_logprobs=top, max_tokens=8) for top in TOPS}
TEXT = TOGETHER.whole("completion", logprobs=TOP, max_tokens=8)
SCORED = TOGETHER.whole("completion", echo=True, max_tokens=0, logprobs=1)
BY_ID = Requests().whole("chat", logprobs=True, logprob_token_ids=ASKED_IDS, max_tokens=2)


@check(35, 36, 40)
@pytest.mark.parametrize("top", TOPS)
def test_chat_logprobs(answers: Answers, record_check: RecordCheck, top: int) -> None:
    """One entry a token; each at most 0, its list as long as asked and sorted, no more than
    probability 1 in all, the greedy choice at its head, and bytes that are its text.

    Does not prove that they are this model's. Would have caught log-probabilities that no
    distribution has; vllm#53411 reports inflated ones beside wrong output.
    """
    answer = answers.whole(CHAT[top])
    choice, generated = answer["choices"][0], answer["usage"]["completion_tokens"]
    problems = logprob_problems(scored_chat(choice), tokens=generated, top=top)
    specified(record_check, problems + bytes_problems(choice))


@check(35, 37)
def test_completion_logprobs(answers: Answers, record_check: RecordCheck) -> None:
    """As of chat; and the tokens put together are the text, each where text_offset says.

    Does not prove that they are this model's. Would have caught offsets that point a reader at the
    wrong token.
    """
    answer = answers.whole(TEXT)
    choice, generated = answer["choices"][0], answer["usage"]["completion_tokens"]
    problems = logprob_problems(scored_completion(choice), tokens=generated, top=TOP)
    specified(record_check, problems + offset_problems(choice))


@check(38)
def test_echo_scores_the_prompt(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """echo with max_tokens=0 says nothing of its own and gives a log-probability for each token of
    the prompt but the first.

    Does not prove them right. Would have caught lm-eval's way of scoring being refused, or
    answered with a token too many.
    """
    beyond_simulation(deployment)
    answer = answers.whole(SCORED)
    prompt = tokenized(answers, {"model": answers.model, "prompt": PROMPT})
    specified(record_check, echo_problems(answer, text=PROMPT, prompt=len(prompt)))


@check(39)
def test_prompt_logprobs(answers: Answers, record_check: RecordCheck) -> None:
    """prompt_logprobs has nothing for the first token and a log-probability for each other, which
    is what correctness compares servers by.

    Does not prove them right. Would have caught a prompt scored after it was cut or shifted.
    """
    prompt = tokenized(answers, {"model": answers.model, "prompt": PROMPT})
    asked: dict[str, Any] = {"prompt": prompt, "max_tokens": 1, "prompt_logprobs": 1}
    answer = read_answer(answers.client.post(COMPLETIONS, json=completion(answers.model, **asked)))
    specified(record_check, prompt_problems(answer["choices"][0].get("prompt_logprobs"), prompt))


@check(41, inform=True)
def test_logprob_token_ids(deployment: Deployment, answers: Answers, judge: Judge) -> None:
    """logprob_token_ids lists the ids asked for, and the generated token, at each position.

    Does not prove their values. Would have caught a comparison of two servers whose top lists hold
    different tokens, so that the rest of the probability was compared with nothing.
    """
    beyond_simulation(deployment)
    answer = answers.response(BY_ID)
    problems = [f"HTTP {answer.status_code}: {answer.text[:200]}"]
    if answer.status_code == 200:
        problems = asked_ids_problems(answer.json()["choices"][0], len(ASKED_IDS))
    shown(judge, "logprob_token_ids", problems, "the server's own openapi.json")
