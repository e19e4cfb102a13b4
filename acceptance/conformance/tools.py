"""Tool calls: that each can be carried out as it stands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from acceptance.conformance.reasoning import deltas
from acceptance.conformance.said import chunks
from acceptance.conformance.structured import schema_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.conformance.sse import Stream

Calls = list[dict[str, Any]]


def calls_in(answer: dict[str, Any]) -> Calls:
    """Of the first choice; empty for none."""
    found: Calls = answer["choices"][0]["message"].get("tool_calls") or []
    return found


def streamed_calls(stream: Stream) -> Calls:
    """Deltas put together by index. The first piece of a call brings its id and name."""
    made: dict[int, dict[str, Any]] = {}
    for delta in deltas(stream):
        for piece in delta.get("tool_calls") or ():
            call = made.setdefault(piece.get("index", 0), {"function": {"arguments": ""}})
            function = piece.get("function") or {}
            for name in ("id", "type"):
                if piece.get(name):
                    call.setdefault(name, piece[name])
            if function.get("name"):
                call["function"].setdefault("name", function["name"])
            call["function"]["arguments"] += function.get("arguments") or ""
    return [made[index] for index in sorted(made)]


def largest_chunk(stream: Stream) -> int:
    """Tokens in the largest chunk of the first choice; 0 without return_token_ids."""
    return max(
        (
            len(choice.get("token_ids") or ())
            for chunk in chunks(stream)
            for choice in chunk.get("choices") or ()
            if choice.get("index") == 0
        ),
        default=0,
    )


def call_problems(calls: Calls, tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each of a type and an id of its own, of a tool that was offered, with arguments of its
    schema."""
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    problems = [] if calls else ["no call"]
    ids = [call.get("id") for call in calls]
    if len(set(ids)) < len(ids) or not all(ids):
        problems.append(f"ids are {ids}")
    for call in calls:
        name = call["function"].get("name")
        if call.get("type") != "function":
            problems.append(f"type is {call.get('type')!r}")
        if name not in offered:
            problems.append(f"{name!r} is none of {sorted(offered)}")
        else:
            problems += schema_problems(call["function"].get("arguments", ""), offered[name])
    return problems


def same_calls(one: Calls, other: Calls) -> bool:
    """Whether both call the same with the same; ids apart."""
    return [_what(call) for call in one] == [_what(call) for call in other]


def _what(call: dict[str, Any]) -> tuple[str, Any]:
    function = call["function"]
    try:
        return function["name"], json.loads(function["arguments"])
    except (LookupError, ValueError):
        return function.get("name", ""), function.get("arguments")
