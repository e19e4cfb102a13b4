"""Streams: their form, and that they say what the whole answer says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.bodies import PATHS
from acceptance.conformance.said import said, said_in
from acceptance.conformance.sse import at_every_byte
from acceptance.conformance.streams import (
    continuous_problems,
    interleaved,
    same_problems,
    stream_problems,
    streamed_usage_problems,
)
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import beyond_simulation, specified

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

KINDS = sorted(PATHS)
kinds = pytest.mark.parametrize("kind", KINDS)
ALIKE = {"max_tokens": 8, "return_token_ids": True}
TWO = {"n": 2, "temperature": 1, "max_tokens": 6, "ignore_eos": True}
COUNTED = 10  # tokens
USAGE = {"include_usage": True}
CONTINUOUS = {**USAGE, "continuous_usage_stats": True}

TOGETHER = Requests()
PLAIN = {kind: TOGETHER.stream(kind) for kind in KINDS}
CHOICES = {kind: TOGETHER.stream(kind, **TWO) for kind in KINDS}
WITH_USAGE, GROWING = (
    {
        kind: TOGETHER.stream(kind, max_tokens=COUNTED, ignore_eos=True, stream_options=options)
        for kind in KINDS
    }
    for options in (USAGE, CONTINUOUS)
)
COMPARED = Requests(alone=True)
WHOLE = {kind: COMPARED.whole(kind, **ALIKE) for kind in KINDS}
STREAMED = {kind: COMPARED.stream(kind, **ALIKE) for kind in KINDS}


@check(14, 19)
@kinds
def test_form(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """Whole events, one id, one finish_reason and nothing after it, [DONE] last.

    Does not prove that tokens come one by one, or in time (see performance). Would have caught a
    server that drops streams after the first token, which a load generator counts as a success.
    """
    specified(record_check, stream_problems(kind, answers.streamed(PLAIN[kind])))


@check(15)
@kinds
def test_equals_whole_answer(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """At temperature 0 with a seed a stream carries the tokens, text, reasoning and end of the
    whole answer to the same request.

    Does not prove them right. Would have caught vllm#54677's cause: text that moved into a field
    (reasoning) which the reader of streams did not count.
    """
    streamed = said_in(answers.streamed(STREAMED[kind]))
    whole = said(answers.whole(WHOLE[kind]))
    problems = same_problems(streamed, whole)
    if not whole.text:
        problems.append("both say nothing")
    specified(record_check, problems)


@check(77)
@kinds
def test_bytes_split_anywhere(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """The bytes of a stream, read one at a time, make the same events as they came.

    Does not prove that every client reads so. Would have caught events that are only whole where a
    packet happens to end.
    """
    stream = answers.streamed(PLAIN[kind])
    again = at_every_byte(stream)
    problems = [] if again.events == stream.events else [f"{again.events} and {stream.events}"]
    problems += [f"bytes are no text: {again.broken}"] if again.broken else []
    problems += [] if stream.raw else ["it has no bytes"]
    specified(record_check, problems)


@check(17)
@kinds
def test_usage_when_asked(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """include_usage brings usage once, in a last chunk without choices, with the right count.

    Does not prove the prompt's count (see test_usage). Would have caught a load generator's output
    of zero tokens against a server that sends none.
    """
    stream = answers.streamed(WITH_USAGE[kind])
    problems = stream_problems(kind, stream)
    problems += streamed_usage_problems(stream, asked=True, generated=COUNTED)
    specified(record_check, problems)


@check(17)
@kinds
def test_no_usage_unasked(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """Without include_usage no chunk brings usage.

    Does not prove anything of its cost. Would have caught --enable-force-include-usage, which puts
    usage into every chunk and breaks clients that take one as the end.
    """
    stream = answers.streamed(PLAIN[kind])
    problems = stream_problems(kind, stream)
    problems += streamed_usage_problems(stream, asked=False, generated=0)
    specified(record_check, problems)


@check(18)
@kinds
def test_continuous_usage(
    deployment: Deployment, answers: Answers, record_check: RecordCheck, kind: str
) -> None:
    """continuous_usage_stats brings usage with every chunk; it never shrinks, and ends at the
    number of tokens that were generated.

    Does not prove each step: a chunk may carry several tokens. Would have caught a counter that
    starts anew with each chunk, which a meter of throughput reads as no progress.
    """
    beyond_simulation(deployment)
    stream = answers.streamed(GROWING[kind])
    specified(record_check, continuous_problems(stream, generated=COUNTED))


@check(14, 29)
@kinds
def test_two_choices(answers: Answers, record_check: RecordCheck, kind: str) -> None:
    """Two streamed choices keep their indices apart, each with its own text and end.

    Does not prove them independent. Would have caught deltas without an index, which put two
    answers into one.
    """
    stream = answers.streamed(CHOICES[kind])
    problems = stream_problems(kind, stream, choices=2)
    if not problems:
        silent = [i for i, one in enumerate(interleaved(stream, 2)) if not one.text]
        problems = [f"choice {index} says nothing" for index in silent]
    specified(record_check, problems)
