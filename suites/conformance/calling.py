"""Requests that offer tools, and the stream that a parser of calls is judged by."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from acceptance.conformance.answers import read_answer
from acceptance.conformance.said import said, said_in
from acceptance.conformance.sse import read_stream
from acceptance.conformance.tools import (
    call_problems,
    calls_in,
    largest_chunk,
    same_calls,
    streamed_calls,
)
from fixtures.judging import not_applicable
from suites.conformance.asking import Requests
from suites.conformance.tasks import CALLS, PLAIN, asked
from suites.conformance.test_usage import tokenized

if TYPE_CHECKING:
    from acceptance.conformance.sse import Stream
    from suites.conformance.asking import Answers

FIRST = CALLS[0]
OFFERED = [dict(tool) for tool in FIRST.tools]
NAMED = {"type": "function", "function": {"name": FIRST.tools[0]["function"]["name"]}}
ARGUMENTS = dict(FIRST.call.arguments) if FIRST.call else {}
CALLED: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": FIRST.call.name if FIRST.call else "", "arguments": json.dumps(ARGUMENTS)},
}
NAMED_IN = CALLED["function"]["name"]
UNSEEN = "the chat template shows the model no tools: give one that does (option chat_template)"
RESULT = "It is sunny there."
HISTORY = [
    {"role": "user", "content": FIRST.prompt},
    {"role": "assistant", "content": None, "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
]
TWICE = [{"role": "user", "content": f"{FIRST.prompt} {CALLS[1].prompt}"}]
BOTH = [
    dict(tool)
    for tool in {t["function"]["name"]: t for t in (*FIRST.tools, *CALLS[1].tools)}.values()
]

TOGETHER = Requests()
CALLING = [(task, TOGETHER.whole("chat", **asked(task))) for task in CALLS]
REQUIRED = TOGETHER.whole("chat", **asked(FIRST, tool_choice="required"))
BY_NAME = TOGETHER.whole("chat", **asked(FIRST, tool_choice=NAMED))
FORBIDDEN = TOGETHER.whole("chat", **asked(FIRST, tool_choice="none"))
NEEDLESS = [
    (t, TOGETHER.whole("chat", **asked(t, tools=OFFERED, tool_choice="auto"))) for t in PLAIN[-4:]
]
SEVERAL = TOGETHER.whole("chat", **asked(FIRST, messages=TWICE, tools=BOTH))
SHORT = Requests()
OFFERED_ONLY = SHORT.whole("chat", tools=OFFERED, tool_choice="auto", max_tokens=2)
AFTER_RESULT = SHORT.whole(
    "chat", messages=HISTORY, tools=OFFERED, max_tokens=4, return_token_ids=True
)
COMPARED = Requests(alone=True)
WHOLE = COMPARED.whole("chat", **asked(FIRST))
STREAMED = COMPARED.stream("chat", **asked(FIRST))
STREAMS = 6  # of the same request, until one shows what the parser makes of a call in pieces
PIECES = 4  # a chunk of less than this part of the call's tokens is a piece of it
IN_ONE_CHUNK = "https://github.com/vllm-project/vllm/issues/48020"


def streams(answers: Answers) -> list[Stream]:
    """The same request until one is right or came in pieces; the last is the one to judge."""
    found = [answers.streamed(STREAMED)]
    while len(found) < STREAMS:
        if in_pieces(answers, found[-1]) or not stream_problems(answers, found[-1]):
            break
        found.append(read_stream(answers.client, STREAMED.path, STREAMED.make(answers)))
    return found


def in_pieces(answers: Answers, stream: Stream) -> bool:
    """Whether no chunk brought so much of the call that a parser may have missed a step."""
    return largest_chunk(stream) * PIECES <= answers.once(_call_tokens)


def _call_tokens(answers: Answers) -> int:
    """Of its arguments alone."""
    text = {"model": answers.model, "prompt": CALLED["function"]["arguments"]}
    return len(tokenized(answers, {**text, "add_special_tokens": False}))


def stream_problems(answers: Answers, stream: Stream) -> list[str]:
    whole, calls = answers.whole(WHOLE), streamed_calls(stream)
    problems = call_problems(calls, FIRST.tools)
    if said_in(stream).tokens == said(whole).tokens and not same_calls(calls, calls_in(whole)):
        problems.append(f"streamed {calls}, whole {calls_in(whole)}")
    return problems


def needs_seen_tools(answers: Answers) -> None:
    if not answers.once(tools_reach):
        not_applicable(UNSEEN)


def tools_reach(answers: Answers) -> bool:
    """Whether the model is told of the tools at all."""
    messages = [{"role": "user", "content": FIRST.prompt.replace(NAMED_IN, "it")}]
    ids = tokenized(answers, {"model": answers.model, "messages": messages, "tools": OFFERED})
    asked_for = {"model": answers.model, "tokens": ids}
    prompt = read_answer(answers.client.post("/detokenize", json=asked_for))["prompt"]
    return all(tool["function"]["name"] in prompt for tool in OFFERED)
