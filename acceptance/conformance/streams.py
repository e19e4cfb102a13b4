"""The form of a streamed answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from acceptance.conformance.answers import FINISHED, usage_problems
from acceptance.conformance.said import DONE, chunks, said_in

if TYPE_CHECKING:
    from acceptance.conformance.said import Said
    from acceptance.conformance.sse import Stream

OBJECTS = {"chat": "chat.completion.chunk", "completion": "text_completion"}
CONSTANT = ("id", "created", "model", "object")


def stream_problems(kind: str, stream: Stream, *, choices: int = 1) -> list[str]:
    """What is wrong with a stream's form: events, ends, identity, choices. Usage apart."""
    if stream.status != 200:
        return [f"HTTP {stream.status}: {stream.body[:300]}"]
    problems = _events(stream)
    found = chunks(stream)
    if not found:
        return [*problems, "no chunk"]
    for name in CONSTANT:
        values = {str(chunk.get(name)) for chunk in found}
        if len(values) > 1 or values == {"None"}:
            problems.append(f"{name} is not one for all chunks: {sorted(values)}")
    if found[0].get("object") != OBJECTS[kind]:
        problems.append(f"object is {found[0].get('object')!r}")
    if kind == "chat":
        problems += _chat_schema(found)
    return problems + _choices(kind, found, choices)


def streamed_usage_problems(stream: Stream, *, asked: bool, generated: int) -> list[str]:
    """With include_usage one chunk without choices brings it, after all others; without, none."""
    found = chunks(stream)
    with_usage = [number for number, chunk in enumerate(found) if chunk.get("usage")]
    if not asked:
        return [f"{len(with_usage)} chunks bring usage unasked"] if with_usage else []
    if with_usage != [len(found) - 1]:
        return [f"usage comes in chunks {with_usage} of {len(found)}, not in the last alone"]
    last = found[-1]
    problems = usage_problems(last["usage"], generated=generated)
    if last.get("choices") != []:
        problems.append(f"the usage chunk has choices: {last.get('choices')}")
    return problems


def continuous_problems(stream: Stream, *, generated: int) -> list[str]:
    """With continuous_usage_stats: usage in every chunk, which never shrinks and ends at the
    tokens that were generated."""
    found = chunks(stream)
    if stream.status != 200 or not found:
        return [f"HTTP {stream.status}, {len(found)} chunks: {stream.body[:200]}"]
    without = [number for number, chunk in enumerate(found) if not chunk.get("usage")]
    if without:
        return [f"chunks {without} of {len(found)} bring no usage"]
    problems = usage_problems(found[-1]["usage"], generated=generated)
    counts = [chunk["usage"].get("completion_tokens", 0) for chunk in found]
    if counts != sorted(counts) or len(set(counts)) < min(3, generated):
        problems.append(f"usage does not grow: {counts}")
    if len({chunk["usage"].get("prompt_tokens") for chunk in found}) > 1:
        problems.append("the prompt's count changes on the way")
    return problems


def same_problems(streamed: Said, whole: Said) -> list[str]:
    """Where a stream says something else than the whole answer to the same request."""
    return [
        f"{name} streamed {getattr(streamed, name)!r}, whole {getattr(whole, name)!r}"
        for name in ("content", "reasoning", "finish_reason", "stop_reason", "tokens")
        if getattr(streamed, name) != getattr(whole, name)
    ]


def _events(stream: Stream) -> list[str]:
    problems = []
    if not stream.content_type.startswith("text/event-stream"):
        problems.append(f"content type is {stream.content_type!r}")
    if stream.broken:
        problems.append(f"broke off: {stream.broken}")
    if stream.unfinished:
        problems.append(f"its last event is unfinished: {stream.unfinished[:100]!r}")
    if stream.events[-1:] != (DONE,):
        problems.append("does not end in [DONE]")
    if stream.events.count(DONE) > 1:
        problems.append("has more than one [DONE]")
    for event in stream.events:
        if event != DONE and (why := _not_a_chunk(event)):
            problems.append(f"{why}: {event[:200]!r}")
    return problems


def _not_a_chunk(event: str) -> str:
    try:
        chunk = json.loads(event)
    except ValueError:
        return "an event is no JSON"
    if not isinstance(chunk, dict) or not isinstance(chunk.get("choices"), list):
        return "an event is no chunk"
    return ""


def _chat_schema(found: list[dict[str, Any]]) -> list[str]:
    from openai.types.chat import ChatCompletionChunk  # here: see answers.py

    for number, chunk in enumerate(found):
        try:
            ChatCompletionChunk.model_validate(chunk)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            return [f"chunk {number} is not OpenAI's schema: {where}: {first['msg']}"]
    return []


def _choices(kind: str, found: list[dict[str, Any]], choices: int) -> list[str]:
    seen: dict[Any, list[dict[str, Any]]] = {}
    for chunk in found:
        for choice in chunk.get("choices") or ():
            seen.setdefault(choice.get("index"), []).append(choice)
    if set(seen) != set(range(choices)):
        return [f"choices are numbered {sorted(map(str, seen))}, not 0 to {choices - 1}"]
    problems = []
    for number, parts in sorted(seen.items()):
        ends = [part.get("finish_reason") for part in parts]
        finished = [end for end in ends if end is not None]
        if len(finished) != 1 or finished[0] not in FINISHED:
            problems.append(f"choice {number} has finish reasons {finished}, not one")
        elif ends[-1] is None:
            problems.append(f"choice {number} goes on after its finish_reason")
        if kind == "chat" and (parts[0].get("delta") or {}).get("role") != "assistant":
            problems.append(f"choice {number} does not begin with its role")
    return problems


def interleaved(stream: Stream, choices: int) -> list[Said]:
    """What each choice of a stream says."""
    return [said_in(stream, index) for index in range(choices)]
