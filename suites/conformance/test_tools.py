"""Tool calls: parsed, complete, and nothing of their raw form left for people to read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from acceptance.conformance.answers import read_answer
from acceptance.conformance.reasoning import RAW, mark_problems, order_problems
from acceptance.conformance.said import said, said_in
from acceptance.conformance.tools import call_problems, calls_in, largest_chunk
from acceptance.judging.judgement import Measurement
from acceptance.rehearsal.tasks import Call, is_right
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.calling import (
    AFTER_RESULT,
    BOTH,
    BY_NAME,
    CALLING,
    FIRST,
    FORBIDDEN,
    IN_ONE_CHUNK,
    NAMED_IN,
    NEEDLESS,
    OFFERED_ONLY,
    REQUIRED,
    RESULT,
    SEVERAL,
    STREAMED,
    UNSEEN,
    in_pieces,
    needs_seen_tools,
    stream_problems,
    streams,
    tools_reach,
)
from suites.conformance.holding import needs_reasoning, needs_tools, shown, specified
from suites.conformance.test_usage import prompt_ids

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from fixtures.judging import Judge, RecordCheck
    from suites.conformance.asking import Answers


@check(58)
def test_tools_are_taken(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A request that offers tools and leaves the choice to the model is answered.

    Does not prove that a call would be parsed. Would have caught a deployment that says it has a
    parser of tool calls, on a server started without --enable-auto-tool-choice.
    """
    needs_tools(deployment)
    answer = answers.response(OFFERED_ONLY)
    told = "answered" if answer.status_code == 200 else f"HTTP {answer.status_code}: {answer.text}"
    record_check(expected="answered", actual=told)
    assert told == "answered", told


@check(58)
def test_tools_reach_the_model(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """The prompt of a request that offers tools names each of them.

    Does not prove that the model was trained on this form. Would have caught R1's and V3's own chat
    templates, which leave tools out, so that the model calls none or makes some up.
    """
    needs_tools(deployment)
    reach = answers.once(tools_reach)
    if not (reach or deployment.options.chat_template or deployment.model_is_generated):
        not_applicable(UNSEEN)
    record_check(expected=True, actual=reach)
    assert reach, UNSEEN


@check(58)
def test_calls_are_parsed(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """Where the model calls a tool, the call has an id of its own, names an offered tool, brings
    arguments of its schema, and the answer says tool_calls.

    Does not prove that it is the right tool (see test_right_tool). Would have caught calls left as
    text, and finish_reason stop beside a call, which agents take for the end.
    """
    needs_tools(deployment, trained=True)
    needs_seen_tools(answers)
    problems = []
    for task, request in CALLING:
        answer = answers.whole(request)
        problems += [f"{task.prompt!r}: {p}" for p in call_problems(calls_in(answer), task.tools)]
        if said(answer).finish_reason != "tool_calls":
            problems.append(f"{task.prompt!r}: finished by {said(answer).finish_reason!r}")
    ids = [call.get("id") for _, request in CALLING for call in calls_in(answers.whole(request))]
    if len(set(ids)) < len(ids):
        problems.append(f"ids come twice: {ids}")
    specified(record_check, problems)


@check(59)
def test_streamed_calls(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """Streamed pieces of arguments make up JSON of the schema, and the whole answer's call wherever
    both generated the same tokens.

    A busy server may hand over most of a call in one chunk, which vLLM's parser is known to lose
    (see test_calls_in_one_chunk): the stream is asked for again then, and judged when it came in
    pieces. What is lost in every one of them is lost. Does not prove it for tokens that differ from
    run to run. Would have caught arguments without their closing brace, which no client can parse.
    """
    needs_tools(deployment, trained=True)
    needs_seen_tools(answers)
    stream = answers.once(streams)[-1]
    problems = stream_problems(answers, stream)
    if problems and not in_pieces(answers, stream):
        problems.append(f"{largest_chunk(stream)} tokens in one chunk, see {IN_ONE_CHUNK}")
    specified(record_check, problems)


@check(59, inform=True)
def test_calls_in_one_chunk(deployment: Deployment, answers: Answers, judge: Judge) -> None:
    """Shows calls that were lost from a stream because one chunk brought most of their tokens.

    Does not prove that none is: whether chunks run together depends on how busy the server is,
    and, with MTP, on what was accepted. Would have caught vllm#48020: the parsers of DeepSeek's V3
    and V3.1 lose a call whose begin and end come in the same chunk.
    """
    needs_tools(deployment, trained=True)
    needs_seen_tools(answers)
    problems = [
        f"stream {n}, at most {largest_chunk(stream)} tokens in a chunk: {problem}"
        for n, stream in enumerate(answers.once(streams), start=1)
        if not in_pieces(answers, stream)
        for problem in stream_problems(answers, stream)
    ]
    shown(judge, "calls_in_one_chunk", problems, IN_ONE_CHUNK)


@check(60)
def test_tool_choice(deployment: Deployment, answers: Answers, record_check: RecordCheck) -> None:
    """required calls some tool, a name calls that one, none calls nothing.

    Does not prove the arguments right. Would have caught a choice that is taken and ignored.
    """
    needs_tools(deployment, trained=True)
    required, named = (calls_in(answers.whole(r)) for r in (REQUIRED, BY_NAME))
    problems = [f"required: {p}" for p in call_problems(required, FIRST.tools)]
    wanted = FIRST.tools[0]["function"]["name"]
    problems += [f"named: {p}" for p in call_problems(named, FIRST.tools[:1])]
    if {call["function"].get("name") for call in named} - {wanted}:
        problems.append(f"named {wanted}, called {named}")
    if forbidden := calls_in(answers.whole(FORBIDDEN)):
        problems.append(f"none: called {forbidden}")
    specified(record_check, problems)


@check(61)
def test_several_calls(deployment: Deployment, answers: Answers, record_check: RecordCheck) -> None:
    """Where the model calls several tools in one answer, each call is complete and has its own id.

    Does not prove that a model calls several when it should; one that called once has shown
    nothing. Would have caught two calls run together into one.
    """
    needs_tools(deployment, trained=True)
    needs_seen_tools(answers)
    calls = calls_in(answers.whole(SEVERAL))
    if len(calls) < 2:
        not_applicable(f"the model made {len(calls)} calls where two were asked for")
    specified(record_check, call_problems(calls, BOTH))


@check(62)
def test_result_is_taken(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A turn that brings a tool's result is answered, and the prompt holds call and result.

    Does not prove that the answer uses it. Would have caught a template that drops results, so
    that agents ask for the same again and again.
    """
    needs_tools(deployment)
    answer = answers.whole(AFTER_RESULT)
    ids = prompt_ids(answer) or []
    asked_for = {"model": answers.model, "tokens": ids}
    prompt = read_answer(answers.client.post("/detokenize", json=asked_for))["prompt"]
    parts = (RESULT, NAMED_IN)
    problems = [f"{part!r} is not in the prompt" for part in parts if part not in prompt]
    specified(record_check, problems)


@check(63)
def test_no_raw_tool_token(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """Nothing of a call's raw form is in content or reasoning, nor in a stream's.

    Does not prove it of calls that are cut off. Would have caught <｜tool▁calls▁begin｜> shown to
    people where a parser gave up half-way.
    """
    needs_tools(deployment, trained=True)
    needs_seen_tools(answers)
    found = [said(answers.whole(request)) for _, request in CALLING]
    found.append(said_in(answers.streamed(STREAMED)))
    problems = [p for one in found for p in mark_problems(one) if any(raw in p for raw in RAW)]
    specified(record_check, problems)


@check(64, inform=True)
def test_right_tool(deployment: Deployment, answers: Answers, judge: Judge) -> None:
    """Shows how often the right tool is called with the right arguments, and how well calls and no
    calls come where they should (F1).

    Does not prove a rate: a few tasks have a wide interval. Would have caught a model served in a
    form in which it calls at random; K2's own API agrees with itself at an F1 of 0.76 to 0.84.
    """
    needs_tools(deployment, trained=True)
    needs_seen_tools(answers)
    called = [(task, calls_in(answers.whole(request))) for task, request in CALLING]
    needless = sum(bool(calls_in(answers.whole(request))) for _, request in NEEDLESS)
    hits = sum(bool(calls) for _, calls in called)
    right = sum(is_right(task, "", _plain(calls)) for task, calls in called)
    evidence = {"asked": len(called), "called": hits, "called in vain": needless}
    misses = len(called) - hits
    judge(
        Measurement(name="tool_trigger_f1", value=_f1(hits, needless, misses), evidence=evidence),
        Measurement(name="right_calls", value=right / len(called), evidence=evidence),
        required=False,
    )


@check(65)
def test_tools_and_reasoning(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """An answer may think and then call: reasoning is there, the call is there, each in its place,
    whole and streamed.

    Does not prove that thinking helps. Would have caught vLLM's two parsers each taking the other's
    text: a call within the reasoning is none.
    """
    needs_tools(deployment, trained=True)
    needs_seen_tools(answers)
    needs_reasoning(deployment, trained=True)
    problems = []
    for task, request in CALLING:
        answer = answers.whole(request)
        one = said(answer)
        if not (one.reasoning.strip() and calls_in(answer)):
            problems.append(f"{task.prompt!r}: reasoning {one.reasoning!r}, {calls_in(answer)}")
        problems += mark_problems(one)
    problems += order_problems(answers.streamed(STREAMED))
    specified(record_check, problems)


def _plain(calls: list[dict[str, Any]]) -> list[Call]:
    plain = []
    for call in calls:
        try:
            arguments = json.loads(call["function"]["arguments"])
        except ValueError:
            arguments = {}
        plain.append(Call(call["function"].get("name", ""), arguments))
    return plain


def _f1(hits: int, needless: int, misses: int) -> float:
    return 2 * hits / (2 * hits + needless + misses) if hits else 0.0
