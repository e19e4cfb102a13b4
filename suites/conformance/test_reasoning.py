"""Reasoning is kept apart from the answer: R1 thinks first, and clients rely on where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.conformance.answers import read_answer
from acceptance.conformance.reasoning import (
    count_problems,
    cut_problems,
    deltas,
    field_problems,
    mark_problems,
    order_problems,
    split_problems,
)
from acceptance.conformance.said import said, said_in
from acceptance.conformance.streams import same_problems
from acceptance.judging.judgement import Measurement
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import needs_reasoning, shown, specified
from suites.conformance.tasks import PLAIN, REASONED, STREAMED, WHOLE, asked, ended

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from fixtures.judging import Judge, RecordCheck
    from suites.conformance.asking import Answers

CUT = 4  # tokens; nobody is done thinking by then
BUDGET = 6  # tokens of reasoning
SPARE = 2  # tokens: the end mark and what a step in flight adds
END = "</think>"

TOGETHER = Requests()
CUT_OFF = TOGETHER.whole("chat", max_tokens=CUT)
CUT_OFF_STREAM = TOGETHER.stream("chat", max_tokens=CUT)
HIDDEN_CUT = TOGETHER.whole("chat", max_tokens=CUT, include_reasoning=False)
LONGER = Requests()
HIDDEN = LONGER.whole("chat", **asked(PLAIN[0], include_reasoning=False))
HIDDEN_STREAM = LONGER.stream("chat", **asked(PLAIN[0], include_reasoning=False))
BUDGETED = LONGER.whole("chat", **asked(PLAIN[1], thinking_token_budget=BUDGET))


@check(43)
def test_reasoning_and_content(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """An answer that ends by itself has reasoning and content, and the marks between them are in
    neither.

    Does not prove that either is right. Would have caught </think> at the head of every answer: a
    server without its parser, or a template that opens the reasoning twice.
    """
    needs_reasoning(deployment, trained=True)
    found = [(task, split_problems(one)) for task, one in ended(answers)]
    specified(record_check, [f"{task.prompt[:40]!r}: {p}" for task, all_ in found for p in all_])


@check(44)
def test_cut_off_in_reasoning(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """An answer cut off while it reasons has null content, its reasoning so far, and says length.

    Does not prove anything of where reasoning ends. Would have caught a parser that is asked for
    and not at work, and half a thought served as the answer.
    """
    needs_reasoning(deployment)
    specified(record_check, cut_problems(answers.whole(CUT_OFF)))


@check(45)
def test_field_of_reasoning(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """The field is `reasoning`, in messages and deltas; `reasoning_content` is gone.

    Does not prove that clients know it. Would have caught vllm PR#33402 from the other side: a
    reader of the old field that finds every answer empty.
    """
    needs_reasoning(deployment)
    message = answers.whole(CUT_OFF)["choices"][0]["message"]
    problems = [f"message: {p}" for p in field_problems([message])]
    problems += [f"stream: {p}" for p in field_problems(deltas(answers.streamed(CUT_OFF_STREAM)))]
    specified(record_check, problems)


@check(46)
def test_stream_reasons_first(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A stream brings all reasoning before all content, both at most once in one delta, and in all
    what the whole answer has, wherever both generated the same tokens.

    Does not prove it for tokens that differ from run to run. Would have caught the last word of a
    thought shown as the first of the answer.
    """
    needs_reasoning(deployment, trained=True)
    stream, whole = answers.streamed(STREAMED), said(answers.whole(WHOLE))
    streamed = said_in(stream)
    problems = order_problems(stream) + split_problems(streamed)
    if streamed.tokens == whole.tokens:
        problems += same_problems(streamed, whole)
    specified(record_check, problems)


@check(47)
def test_reasoning_is_hidden(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """With include_reasoning=false no reasoning comes, cut off or not.

    Does not prove that it costs no time. Would have caught thoughts shown to people from whom the
    operator keeps them.
    """
    needs_reasoning(deployment)
    found = {"cut off": said(answers.whole(HIDDEN_CUT))}
    if deployment.trained:
        found["whole"] = said(answers.whole(HIDDEN))
        found["stream"] = said_in(answers.streamed(HIDDEN_STREAM))
    problems = [f"{k}: reasoning {one.reasoning!r}" for k, one in found.items() if one.reasoning]
    problems += [f"{name}: {p}" for name, one in found.items() for p in mark_problems(one)]
    problems += [
        f"{name}: nothing is left"
        for name, one in found.items()
        if name != "cut off" and not one.content.strip()
    ]
    specified(record_check, problems)


@check(48)
def test_thinking_budget(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """thinking_token_budget ends the reasoning after so many tokens, and an answer follows.

    Does not prove that the answer is as good. Would have caught a budget that is taken and ignored.
    """
    needs_reasoning(deployment, trained=True)
    answer = answers.response(BUDGETED)
    if answer.status_code == 400 and "reasoning_config" in answer.text:
        not_applicable("this server has no --reasoning-config, without which there is no budget")
    one = said(read_answer(answer))
    reasoned = _reasoned(answers, one.tokens)
    problems = [] if reasoned is not None else ["the reasoning does not end"]
    if reasoned is not None and reasoned > BUDGET + SPARE:
        problems.append(f"{reasoned} tokens of reasoning, the budget is {BUDGET}")
    specified(record_check, problems)


@check(49, inform=True)
def test_reasoning_tokens_are_counted(
    deployment: Deployment, answers: Answers, judge: Judge
) -> None:
    """usage counts as many reasoning tokens as the client does, by where the end mark is.

    Does not prove a price. Would have caught the count of 0 that vLLM 0.32 gives for R1, whose
    template opens the reasoning in the prompt (vllm PR#49743).
    """
    needs_reasoning(deployment, trained=True)
    problems = []
    for task, request in REASONED:
        answer = answers.whole(request)
        reasoned = _reasoned(answers, said(answer).tokens)
        if reasoned is not None:
            problems += [f"{task.prompt[:40]!r}: {p}" for p in count_problems(answer, reasoned)]
    shown(judge, "reasoning_tokens", problems, "tokens up to the end mark")


@check(51, inform=True)
def test_only_reasoning(deployment: Deployment, answers: Answers, judge: Judge) -> None:
    """Shows how many answers are nothing but reasoning.

    Does not prove a rate: the tasks are few. Would have caught answers that never come to a point,
    which MiniMax's verifier counts as errors.
    """
    needs_reasoning(deployment, trained=True)
    said_all = [one for _, one in ended(answers)]
    empty = sum(bool(one.reasoning.strip()) and not one.content.strip() for one in said_all)
    judge(_share("only_reasoning", empty, len(said_all)), required=False)


@check(52, inform=True)
def test_no_reasoning(deployment: Deployment, answers: Answers, judge: Judge) -> None:
    """Shows how many answers come without a thought.

    Does not prove that thinking would help. Would have caught R1 answering at once with an empty
    thought, which costs accuracy.
    """
    needs_reasoning(deployment, trained=True)
    said_all = [one for _, one in ended(answers)]
    none = sum(not one.reasoning.strip() for one in said_all)
    judge(_share("no_reasoning", none, len(said_all)), required=False)


def _share(name: str, count: int, of: int) -> Measurement:
    return Measurement(name=name, value=count / of, evidence={"answers": of, "counted": count})


def _reasoned(answers: Answers, tokens: tuple[int, ...]) -> int | None:
    """Tokens up to and with the end mark; None where there is none."""
    end = answers.once(_end_token)
    return tokens.index(end) + 1 if end in tokens else None


def _end_token(answers: Answers) -> int:
    wanted = {"model": answers.model, "prompt": END, "add_special_tokens": False}
    tokens: list[int] = read_answer(answers.client.post("/tokenize", json=wanted))["tokens"]
    assert len(tokens) == 1, f"{END} is {len(tokens)} tokens"
    return tokens[0]
