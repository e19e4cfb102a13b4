"""What alterations have in common, and their table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from defects_proxy import Alteration

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

COMPLETE = ("/v1/completions", "/v1/chat/completions")
MANY = 6  # requests after which what shows late shows
LONG = 512  # tokens above which what shows on long prompts shows
ALTERATIONS: dict[str, type[Alteration]] = {"none": Alteration}


def alteration(name: str) -> Callable[[type[Alteration]], type[Alteration]]:
    def named(kind: type[Alteration]) -> type[Alteration]:
        ALTERATIONS[name] = kind
        return kind

    return named


def choices(said: Any) -> list[dict[str, Any]]:
    return said.get("choices") or [] if isinstance(said, dict) else []


def texts(said: Any, change: Callable[[str], str]) -> Any:
    """The answer, whole or a chunk of it, with every text changed."""
    for choice in choices(said):
        for holder, name in (
            (choice, "text"),
            (choice.get("message"), "content"),
            (choice.get("delta"), "content"),
        ):
            if holder and isinstance(holder.get(name), str) and holder[name]:
                holder[name] = change(holder[name])
    return said


class Texts(Alteration):
    """Changes every text, of whole answers and of streams."""

    def change(self, asked: Any, text: str) -> str:
        raise NotImplementedError

    def meets(self, asked: Any) -> bool:
        return True

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        if path in COMPLETE and self.meets(asked):
            said = texts(said, lambda text: self.change(asked, text))
        return status, said

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        if self.meets(asked):
            return [texts(event, lambda text: self.change(asked, text)) for event in events]
        return events


class Events(Alteration):
    def chunks(self, events: list[Any]) -> list[int]:
        """Places of events that carry text."""
        return [
            place
            for place, event in enumerate(events)
            for choice in choices(event)
            if choice.get("text") or (choice.get("delta") or {}).get("content")
        ]


class Asks(Alteration):
    """Changes what completions are asked."""

    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def asks(self, session: aiohttp.ClientSession, path: str, body: Any) -> Any:
        return self.change(body) if path in COMPLETE else body
