"""Conversations become the prompt that they should: roles, turns, and an answer already begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.conformance.bodies import body
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import beyond_simulation, needs_reasoning, specified
from suites.conformance.test_usage import prompt_ids, tokenized

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

Messages = list[dict[str, str]]

BOS, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
SYSTEM, FIRST, REPLY, SECOND = "Be brief.", "What is the sea?", "It is water.", "And the sky?"
BEGUN = "The sky is"


def _message(role: str, content: str, **more: str) -> dict[str, str]:
    return {"role": role, "content": content, **more}


TURNS = [_message("user", FIRST), _message("assistant", REPLY), _message("user", SECOND)]
CONVERSATIONS: dict[str, Messages] = {
    "system": [_message("system", SYSTEM), _message("user", FIRST)],
    "turns": TURNS,
    "system and turns": [_message("system", SYSTEM), *TURNS],
}
# R1's and V3's own template, up to where the answer begins. It ends in the mark of the assistant;
# what R1 adds after it ("<think>" and a line end) is part of the answer's beginning.
GOLDEN = {
    "system": f"{BOS}{SYSTEM}{USER}{FIRST}{ASSISTANT}",
    "turns": f"{BOS}{USER}{FIRST}{ASSISTANT}{REPLY}{END}{USER}{SECOND}{ASSISTANT}",
    "system and turns": f"{BOS}{SYSTEM}{USER}{FIRST}{ASSISTANT}{REPLY}{END}{USER}{SECOND}"
    f"{ASSISTANT}",
}
CONTINUED: dict[str, Any] = {
    "messages": [*TURNS, _message("assistant", BEGUN)],
    "add_generation_prompt": False,
    "continue_final_message": True,
}
THOUGHT = "Water is what it is made of."
THOUGHT_OVER = [TURNS[0], _message("assistant", REPLY, reasoning=THOUGHT), TURNS[2]]

TOGETHER = Requests()
RENDERED = {
    name: TOGETHER.whole("chat", messages=messages, max_tokens=1, return_token_ids=True)
    for name, messages in CONVERSATIONS.items()
}
GOES_ON = TOGETHER.whole("chat", **CONTINUED, max_tokens=1, return_token_ids=True)
TEXT = TOGETHER.whole("completion", max_tokens=1, return_token_ids=True)
AFTER_THOUGHT = TOGETHER.whole("chat", messages=THOUGHT_OVER, max_tokens=1, return_token_ids=True)


@check(33)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(
    deployment: Deployment, answers: Answers, record_check: RecordCheck, name: str
) -> None:
    """System prompts and turns are rendered as /tokenize renders them, and that is DeepSeek's
    template: each role behind its mark, each answer closed by the end token.

    Does not prove that another template would be wrong for the model. Would have caught a tokenizer
    shipped without its chat template, and one that drops the system prompt.
    """
    beyond_simulation(deployment)
    run = prompt_ids(answers.whole(RENDERED[name])) or []
    asked = {"model": answers.model, "messages": CONVERSATIONS[name]}
    by_tokenize = tokenized(answers, asked)
    problems = [] if run == by_tokenize else [f"run {run}, tokenized {by_tokenize}"]
    raw = {"model": answers.model, "prompt": GOLDEN[name], "add_special_tokens": False}
    golden = tokenized(answers, raw)
    if run[: len(golden)] != golden:
        problems.append(f"run {run}, which does not begin as the template: {golden}")
    specified(record_check, problems)


@check(33)
def test_begun_answer_goes_on(answers: Answers, record_check: RecordCheck) -> None:
    """With continue_final_message the prompt ends in what the assistant already said: no end token
    and no new turn.

    Does not prove that the model goes on well. Would have caught an answer begun by the client and
    then begun anew.
    """
    run = prompt_ids(answers.whole(GOES_ON)) or []
    expected = tokenized(answers, {"model": answers.model, **CONTINUED})
    problems = [] if run == expected else [f"run {run}, tokenized {expected}"]
    raw = {"model": answers.model, "prompt": BEGUN, "add_special_tokens": False}
    ending = tokenized(answers, raw)
    if run[-len(ending) :] != ending:
        problems.append(f"the prompt ends in {run[-len(ending) :]}, not in {ending}")
    specified(record_check, problems)


@check(33)
def test_text_gets_one_bos(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A text prompt is run after one BOS token, which DeepSeek's tokenizer puts before every text.

    Does not prove the rest of the tokenizer the model's. Would have caught
    a checkpoint by whose tokenizer the server and its own /tokenize both put two, or none.
    """
    beyond_simulation(deployment)
    run = prompt_ids(answers.whole(TEXT)) or []
    text = f"{BOS}{body('completion', answers.model)['prompt']}"
    raw = {"model": answers.model, "prompt": text, "add_special_tokens": False}
    once = tokenized(answers, raw)
    specified(record_check, [] if run == once else [f"run {run}, with one BOS {once}"])


@check(50)
def test_former_reasoning_is_left_out(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A former turn that is sent back with its reasoning makes the same prompt as without.

    Does not prove it of reasoning that a client puts into the content. Would have caught
    conversations that grow by every thought, which R1 was not trained on.
    """
    needs_reasoning(deployment)
    run = prompt_ids(answers.whole(AFTER_THOUGHT))
    without = tokenized(answers, {"model": answers.model, "messages": TURNS})
    specified(record_check, [] if run == without else [f"with {run}, without {without}"])
