"""Server-sent events are the same however the network cuts them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.conformance.said import Said, said_in
from acceptance.conformance.sse import SseParser, collect
from acceptance.conformance.streams import stream_problems

EVENTS = ['{"a": "🌊 e\u0301 \u2028 مرحبا"}', '{"b": 1}', "[DONE]"]
WIRE = "".join(f"data: {event}\n\n" for event in EVENTS).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_any_split(size: int, ending: bytes) -> None:
    wire = WIRE.replace(b"\n", ending)
    parser = SseParser()
    for start in range(0, len(wire), size):
        parser.feed(wire[start : start + size])
    assert parser.events == EVENTS
    assert parser.unfinished == ""


@given(st.lists(st.integers(0, len(WIRE)), max_size=6))
def test_any_cuts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WIRE)]
    parser = SseParser()
    for start, end in pairwise(edges):
        parser.feed(WIRE[start:end])
    assert parser.events == EVENTS


def test_comments_and_other_fields_are_passed_over() -> None:
    parser = SseParser()
    parser.feed(b": keep-alive\n\nevent: message\nid: 7\ndata: one\ndata:two\n\nretry: 5\n\n")
    assert parser.events == ["one\ntwo"]


@pytest.mark.parametrize("rest", [b"data: {", b"data: {}", b"data: {}\n"])
def test_what_no_blank_line_ends_is_unfinished(rest: bytes) -> None:
    stream = collect([WIRE, rest], 200, "text/event-stream")
    assert stream.unfinished
    assert any("unfinished" in problem for problem in stream_problems("chat", stream))


def test_bytes_that_are_no_text_break_the_stream() -> None:
    stream = collect([b"data: \xff\n\n"], 200, "text/event-stream")
    assert "UnicodeDecodeError" in stream.broken
    assert any("broke off" in problem for problem in stream_problems("chat", stream))


def test_reasoning_and_content_are_kept_apart() -> None:
    deltas = ['{"reasoning": "hm"}', '{"reasoning": ", "}', '{"content": "sea"}']
    wire = "".join(f'data: {{"choices": [{{"index": 0, "delta": {d}}}]}}\n\n' for d in deltas)
    stream = collect([wire.encode()], 200, "text/event-stream")
    assert said_in(stream) == Said(content="sea", reasoning="hm, ")


def test_an_answer_that_is_no_stream_is_told_with_its_text() -> None:
    stream = collect([], 404, "application/json")
    assert stream_problems("chat", stream) == ["HTTP 404: "]
