"""Reasoning apart from content: what a parser split off, whole and in a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acceptance.conformance.said import chunks, said

if TYPE_CHECKING:
    from acceptance.conformance.said import Said
    from acceptance.conformance.sse import Stream

MARKS = ("<think>", "</think>")
FIELD, OLD_FIELD = "reasoning", "reasoning_content"
RAW = ("<｜tool", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>")


def split_problems(one: Said) -> list[str]:
    """Of an answer that reasoned and ended: both parts there, and no mark in either."""
    problems = []
    if not one.reasoning.strip():
        problems.append(f"no reasoning before {one.content[:80]!r}")
    if not one.content.strip():
        problems.append(f"nothing after the reasoning {one.reasoning[-80:]!r}")
    return problems + mark_problems(one)


def mark_problems(one: Said) -> list[str]:
    """No mark of reasoning, and no raw token of a tool call or a turn, in what people read."""
    return [
        f"{mark} in {name}: {text[:120]!r}"
        for name, text in (("content", one.content), ("reasoning", one.reasoning))
        for mark in (*MARKS, *RAW)
        if mark in text
    ]


def cut_problems(answer: dict[str, Any]) -> list[str]:
    """Of an answer cut off while it reasoned: content null, reasoning text, finished by length."""
    message, one = answer["choices"][0]["message"], said(answer)
    problems = []
    if message.get("content") is not None:
        problems.append(f"content is {message['content']!r}, not null")
    if not one.reasoning:
        problems.append("no reasoning: the parser that was asked for is not at work")
    if one.finish_reason != "length":
        problems.append(f"finished by {one.finish_reason!r}, not 'length'")
    return problems


def field_problems(parts: list[dict[str, Any]]) -> list[str]:
    """parts: messages, or deltas of a stream. The field is reasoning, by that name alone."""
    problems = [] if any(part.get(FIELD) for part in parts) else [f"no {FIELD} in any part"]
    old = sum(OLD_FIELD in part for part in parts)
    return problems + ([f"{old} parts have {OLD_FIELD}"] if old else [])


def deltas(stream: Stream) -> list[dict[str, Any]]:
    """Of the first choice."""
    return [
        choice.get("delta") or {}
        for chunk in chunks(stream)
        for choice in chunk.get("choices") or ()
        if choice.get("index") == 0
    ]


def order_problems(stream: Stream) -> list[str]:
    """Reasoning comes first: no reasoning after content, and at most one delta has both."""
    problems, content, both = [], False, 0
    for number, delta in enumerate(deltas(stream)):
        thinks, says = bool(delta.get(FIELD)), bool(delta.get("content"))
        if thinks and content:
            problems.append(f"delta {number} reasons after content began")
        content = content or says
        both += thinks and says
    if both > 1:
        problems.append(f"{both} deltas have both")
    return problems


def count_problems(answer: dict[str, Any], reasoned: int) -> list[str]:
    """reasoned: tokens up to and with the end of reasoning, counted by the client."""
    details = (answer.get("usage") or {}).get("completion_tokens_details") or {}
    told = details.get("reasoning_tokens")
    near = told is not None and abs(told - reasoned) <= 2  # whether the marks count is open
    return [] if near else [f"usage counts {told} reasoning tokens, the client {reasoned}"]
