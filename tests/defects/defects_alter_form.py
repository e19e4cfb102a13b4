"""Alterations of how it is told: stops, counts, streams, fields."""

from __future__ import annotations

from typing import Any

from defects_altering import Asks, Events, alteration, choices, texts
from defects_proxy import DONE, Alteration


@alteration("stop-string-leaks")
class StopStringLeaks(Alteration):
    """A stream tells the first character of the stop string before it ends."""

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        stop = (asked or {}).get("stop")
        for event in events:
            for choice in choices(event):
                if stop and choice.get("finish_reason") == "stop" and "text" in choice:
                    choice["text"] += (stop if isinstance(stop, str) else stop[0])[:1]
        return events


@alteration("stop-string-kept")
class StopStringKept(Alteration):
    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        stop = (asked or {}).get("stop")
        if stop and not asked.get("include_stop_str_in_output"):
            said = texts(said, lambda text: text + (stop if isinstance(stop, str) else stop[0]))
        return status, said


class Usage(Alteration):
    count = "completion_tokens"
    by = 1

    def told(self, said: Any) -> Any:
        usage = said.get("usage") if isinstance(said, dict) else None
        if usage:
            usage[self.count] += self.by
            usage["total_tokens"] += self.by
        return said

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        return status, self.told(said)

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        return [self.told(event) for event in events]


@alteration("usage-completion-off")
class UsageCompletionOff(Usage):
    pass


@alteration("usage-prompt-off")
class UsagePromptOff(Usage):
    count = "prompt_tokens"


@alteration("stream-drops-last-token")
class StreamDropsLastToken(Events):
    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        if places := self.chunks(events):
            texts(events[places[-1]], lambda _: "")
        return events


@alteration("stream-without-done")
class StreamWithoutDone(Alteration):
    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        return [event for event in events if event != DONE]


@alteration("stream-error-after-200")
class StreamErrorAfter200(Events):
    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        places = self.chunks(events)
        cut = places[0] + 1 if places else 1
        error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError"}
        return [*events[:cut], {"error": {**error, "code": 500}}, DONE]


@alteration("stream-breaks-off")
class StreamBreaksOff(Events):
    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        places = self.chunks(events)
        return events[: places[0] + 1] if places else events


@alteration("stream-splits-utf8")
class StreamSplitsUtf8(Alteration):
    """A character of two bytes is put into two events, a byte in each."""

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        self.met = False

        def change(text: str) -> str:
            if self.met or not any(ord(c) < 128 for c in text):
                return text
            self.met = True
            return f"\x00{text}"

        return [texts(event, change) for event in events]

    def wire(self, data: bytes) -> bytes:
        return data.replace(b"\\u0000", b"\xc3")


@alteration("stream-usage-missing")
class StreamUsageMissing(Alteration):
    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        return [e for e in events if not (isinstance(e, dict) and e.get("usage"))]


@alteration("reasoning-in-old-field")
class ReasoningInOldField(Alteration):
    """Streams say in another field what whole answers say in content."""

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        for event in events:
            for choice in choices(event):
                delta = choice.get("delta") or {}
                for name in ("content", "reasoning"):
                    if delta.get(name):
                        delta["reasoning_content"] = delta.pop(name)
        return events


@alteration("reasoning-parser-off")
class ReasoningParserOff(Alteration):
    """Thoughts are told as part of the answer."""

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        for choice in choices(said):
            message = choice.get("message") or {}
            if message.get("reasoning"):
                whole = f"<think>{message['reasoning']}</think>{message.get('content') or ''}"
                message.update(content=whole, reasoning=None)
        return status, said

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        for event in events:
            for choice in choices(event):
                delta = choice.get("delta") or {}
                if delta.get("reasoning"):
                    delta["content"] = delta.pop("reasoning")
        return events


@alteration("tool-arguments-broken")
class ToolArgumentsBroken(Alteration):
    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        for choice in choices(said):
            for call in (choice.get("message") or {}).get("tool_calls") or []:
                call["function"]["arguments"] = call["function"]["arguments"][:-1]
        return status, said


@alteration("one-token-short")
class OneTokenShort(Asks):
    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body.get("max_tokens")
        return {**body, "max_tokens": asked - 1} if isinstance(asked, int) and asked > 1 else body


@alteration("eos-not-ignored")
class EosNotIgnored(Asks):
    """Ends every answer after 40 tokens as if the model had."""

    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body.get("max_tokens")
        return {**body, "max_tokens": 40} if isinstance(asked, int) and asked > 40 else body


@alteration("choices-lost")
class ChoicesLost(Asks):
    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "n": 1} if "n" in body else body
