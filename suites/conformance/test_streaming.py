"""Streams: their form, and that they say what the whole answer says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.answers import read_answer
from acceptance.conformance.bodies import PATHS, TOKENS, body
from acceptance.conformance.said import said, said_in
from acceptance.conformance.sse import read_stream
from acceptance.conformance.streams import (
    interleaved,
    same_problems,
    stream_problems,
    streamed_usage_problems,
)
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck

kinds = pytest.mark.parametrize("kind", sorted(PATHS))


@kinds
def test_form(server: Server, http: httpx.Client, record_check: RecordCheck, kind: str) -> None:
    """Whole events, one id, one finish_reason and nothing after it, [DONE] last.

    Does not prove that tokens come one by one, or in time (see performance). Would have caught a
    server that drops streams after the first token, which a load generator counts as a success.
    """
    stream = read_stream(http, PATHS[kind], body(kind, server.model))
    specified(record_check, stream_problems(kind, stream))


@kinds
def test_equals_whole_answer(
    server: Server, http: httpx.Client, record_check: RecordCheck, kind: str
) -> None:
    """At temperature 0 with a seed a stream carries the tokens, text, reasoning and end of the
    whole answer to the same request.

    Does not prove them right. Would have caught vllm#54677's cause: text that moved into a field
    (reasoning) which the reader of streams did not count.
    """
    asked = body(kind, server.model, return_token_ids=True)
    streamed = said_in(read_stream(http, PATHS[kind], asked))
    whole = said(read_answer(http.post(PATHS[kind], json=asked)))
    problems = same_problems(streamed, whole)
    if not whole.text:
        problems.append("both say nothing")
    specified(record_check, problems)


@kinds
def test_usage_when_asked(
    server: Server, http: httpx.Client, record_check: RecordCheck, kind: str
) -> None:
    """include_usage brings usage once, in a last chunk without choices, with the right count.

    Does not prove the prompt's count (see test_usage). Would have caught a load generator's output
    of zero tokens against a server that sends none.
    """
    asked = body(kind, server.model, ignore_eos=True, stream_options={"include_usage": True})
    stream = read_stream(http, PATHS[kind], asked)
    problems = stream_problems(kind, stream)
    problems += streamed_usage_problems(stream, asked=True, generated=TOKENS)
    specified(record_check, problems)


@kinds
def test_no_usage_unasked(
    server: Server, http: httpx.Client, record_check: RecordCheck, kind: str
) -> None:
    """Without include_usage no chunk brings usage.

    Does not prove anything of its cost. Would have caught --enable-force-include-usage, which puts
    usage into every chunk and breaks clients that take one as the end.
    """
    stream = read_stream(http, PATHS[kind], body(kind, server.model))
    problems = stream_problems(kind, stream)
    problems += streamed_usage_problems(stream, asked=False, generated=TOKENS)
    specified(record_check, problems)


@kinds
def test_two_choices(
    server: Server, http: httpx.Client, record_check: RecordCheck, kind: str
) -> None:
    """Two streamed choices keep their indices apart, each with its own text and end.

    Does not prove them independent. Would have caught deltas without an index, which put two
    answers into one.
    """
    asked = body(kind, server.model, n=2, temperature=1, max_tokens=6, ignore_eos=True)
    stream = read_stream(http, PATHS[kind], asked)
    problems = stream_problems(kind, stream, choices=2)
    if not problems:
        silent = [i for i, one in enumerate(interleaved(stream, 2)) if not one.text]
        problems = [f"choice {index} says nothing" for index in silent]
    specified(record_check, problems)
