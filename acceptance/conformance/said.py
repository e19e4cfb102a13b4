"""What a choice says, the same from a whole answer and from a streamed one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acceptance.conformance.sse import Stream

DONE = "[DONE]"


@dataclass(frozen=True)
class Said:
    """content: text of a completion, or content of a message. reasoning: what a reasoning parser
    split off. tokens: ids, empty without return_token_ids. Absent texts are empty."""

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    tokens: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """Everything that was said."""
        return self.reasoning + self.content


def said(answer: dict[str, Any], index: int = 0) -> Said:
    """From a whole answer. Raises LookupError when it has no such choice."""
    choice = next(c for c in _choices(answer, index))
    message = choice.get("message", {})
    return Said(
        content=choice.get("text") or message.get("content") or "",
        reasoning=message.get("reasoning") or "",
        finish_reason=choice.get("finish_reason"),
        stop_reason=choice.get("stop_reason"),
        tokens=tuple(choice.get("token_ids") or ()),
    )


def said_in(stream: Stream, index: int = 0) -> Said:
    """From a stream: the deltas of one choice put together."""
    content, reasoning = "", ""
    tokens: list[int] = []
    finish: str | None = None
    stop: str | int | None = None
    for chunk in chunks(stream):
        for choice in chunk.get("choices") or ():
            if choice.get("index") != index:
                continue
            delta = choice.get("delta") or {}
            content += choice.get("text") or delta.get("content") or ""
            reasoning += delta.get("reasoning") or ""
            tokens += choice.get("token_ids") or ()
            finish = choice.get("finish_reason") or finish
            stop = choice.get("stop_reason") if stop is None else stop
    return Said(content, reasoning, finish, stop, tuple(tokens))


def chunks(stream: Stream) -> list[dict[str, Any]]:
    """The events that are JSON objects; what is none is a problem of the stream's form."""
    found = []
    for event in stream.events:
        try:
            chunk = json.loads(event)
        except ValueError:
            continue
        if isinstance(chunk, dict):
            found.append(chunk)
    return found


def _choices(answer: dict[str, Any], index: int) -> list[dict[str, Any]]:
    found = [c for c in answer.get("choices") or () if c.get("index") == index]
    if not found:
        raise LookupError(f"the answer has no choice {index}")
    return found
