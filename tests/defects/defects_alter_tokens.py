"""Alterations of what was computed: texts, log-probabilities, sampling, prompts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from defects_altering import COMPLETE, LONG, MANY, Asks, Texts, alteration, choices
from defects_proxy import Alteration

if TYPE_CHECKING:
    import aiohttp


ALIKE, TOKEN = 32, 4  # tokens by which prompts are taken for one; characters of a token


@alteration("only-bos")
class OnlyBos(Texts):
    def change(self, asked: Any, text: str) -> str:
        return ""


@alteration("repeats-itself")
class RepeatsItself(Texts):
    def change(self, asked: Any, text: str) -> str:
        return text[:1] * len(text)


@alteration("garbled-later")
class GarbledLater(Texts):
    """The first requests are right."""

    def __init__(self) -> None:
        self.seen = 0

    def meets(self, asked: Any) -> bool:
        self.seen += 1
        return self.seen > MANY

    def change(self, asked: Any, text: str) -> str:
        return text[::-1]


@alteration("garbled-second-time")
class GarbledSecondTime(Texts):
    """The same request is answered rightly once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def meets(self, asked: Any) -> bool:
        key = json.dumps(asked, sort_keys=True)
        again = key in self.seen
        self.seen.add(key)
        return again

    def change(self, asked: Any, text: str) -> str:
        return text[::-1]


@alteration("garbled-above-a-length")
class GarbledAboveALength(Texts):
    def meets(self, asked: Any) -> bool:
        prompt = (asked or {}).get("prompt") or json.dumps((asked or {}).get("messages", ""))
        return isinstance(prompt, list | str) and len(prompt) > LONG

    def change(self, asked: Any, text: str) -> str:
        return text[::-1].upper()


@alteration("stream-unlike-whole")
class StreamUnlikeWhole(Texts):
    def meets(self, asked: Any) -> bool:
        return bool(asked and asked.get("stream"))

    def change(self, asked: Any, text: str) -> str:
        return text.swapcase()


@alteration("cross-talk")
class CrossTalk(Alteration):
    """Of requests in flight at one time, one gets the answer of another."""

    def __init__(self) -> None:
        self.flying = 0
        self.last: Any = None

    async def asks(self, session: aiohttp.ClientSession, path: str, body: Any) -> Any:
        if path in COMPLETE:
            self.flying += 1
            await asyncio.sleep(0.05)
        return body

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        if path not in COMPLETE:
            return status, said
        alone, self.flying = self.flying == 1, self.flying - 1
        other, self.last = self.last, said
        return (status, said) if alone or other is None else (status, other)

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        self.flying -= 1
        return events


@alteration("prefix-reused")
class PrefixReused(Alteration):
    """Prompts that begin alike get the answer of the first of them, but for those that are scored,
    which vLLM computes without its prefix cache."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        if path not in COMPLETE or status != 200 or "prompt_logprobs" in asked:
            return status, said
        rest = {k: v for k, v in asked.items() if k not in ("prompt", "messages")}
        key = json.dumps([_beginning(asked), rest], sort_keys=True)
        return status, self.known.setdefault(key, said)


def _beginning(asked: Any) -> Any:
    """Of the prompt or conversation; of a list of texts, all."""
    contents = (str(message.get("content")) for message in asked.get("messages") or [])
    prompt = asked.get("prompt") or "\n".join(contents)
    if isinstance(prompt, str):
        return prompt[: TOKEN * ALIKE]
    return prompt[:ALIKE] if isinstance(prompt[0], int) else prompt


class Scores(Alteration):
    """Changes lists of log-probabilities of generated tokens."""

    def change(self, values: list[Any]) -> list[Any]:
        raise NotImplementedError

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        for choice in choices(said):
            found = choice.get("logprobs") or {}
            if found.get("token_logprobs"):
                found["token_logprobs"] = self.change(found["token_logprobs"])
            if entries := found.get("content"):
                changed = self.change([entry["logprob"] for entry in entries])
                for entry, value in zip(entries, changed, strict=True):
                    entry["logprob"] = value
        return status, said


@alteration("logprobs-positive")
class LogprobsPositive(Scores):
    def change(self, values: list[Any]) -> list[Any]:
        return [value if value is None else abs(value) + 0.1 for value in values]


@alteration("logprobs-shifted")
class LogprobsShifted(Scores):
    def change(self, values: list[Any]) -> list[Any]:
        return values[1:] + values[:1]


@alteration("logprobs-nan")
class LogprobsNan(Scores):
    def change(self, values: list[Any]) -> list[Any]:
        return [float("nan") for _ in values]


@alteration("prompt-logprobs-shifted")
class PromptLogprobsShifted(Alteration):
    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        for choice in choices(said):
            if choice.get("prompt_logprobs"):
                choice["prompt_logprobs"] = [*choice["prompt_logprobs"][1:], None]
        return status, said


@alteration("scores-of-another-temperature")
class ScoresOfAnotherTemperature(Alteration):
    """Log-probabilities of prompts as at temperature 0.6: the model's own, divided."""

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        for choice in choices(said):
            for row in choice.get("prompt_logprobs") or []:
                for entry in (row or {}).values():
                    entry["logprob"] /= 0.6
        return status, said


@alteration("temperature-ignored")
class TemperatureIgnored(Asks):
    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "temperature": 0}


@alteration("greedy-ignored")
class GreedyIgnored(Asks):
    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("temperature") != 0:
            return body
        kept = {name: value for name, value in body.items() if name != "seed"}
        return {**kept, "temperature": 0.8}


@alteration("seed-ignored")
class SeedIgnored(Asks):
    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in body.items() if name != "seed"}


@alteration("chat-template-of-another-model")
class ChatTemplateOfAnotherModel(Asks):
    """Chats are rendered in Llama's form, which /tokenize does not know of."""

    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        for message in body.get("messages") or []:
            if isinstance(message, dict) and isinstance(message.get("content"), str):
                message["content"] = f"[INST] {message['content']} [/INST]"
        return body


@alteration("prompt-truncated")
class PromptTruncated(Asks):
    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) > LONG:
            body["prompt"] = prompt[-LONG:]
        return body


@alteration("prompt-truncated-silently")
class PromptTruncatedSilently(PromptTruncated):
    """Chats as well, whose first message is cut; and usage counts what was sent, as a front end in
    the engine's place does."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}

    async def asks(self, session: aiohttp.ClientSession, path: str, body: Any) -> Any:
        if path == "/v1/chat/completions" and (messages := body.get("messages")):
            asked = {"model": body["model"], "messages": messages}
            sent = len((await self._post(session, "/tokenize", asked))["tokens"])
            self.sent[json.dumps(messages)] = sent
            if sent > LONG:
                await self._cut(session, body["model"], messages[0], sent - LONG)
        return await super().asks(session, path, body)

    async def _cut(
        self, session: aiohttp.ClientSession, model: str, message: dict[str, Any], tokens: int
    ) -> None:
        asked = {"model": model, "prompt": message["content"], "add_special_tokens": False}
        found = (await self._post(session, "/tokenize", asked))["tokens"][tokens:]
        kept = {"model": model, "tokens": found}
        message["content"] = (await self._post(session, "/detokenize", kept))["prompt"]

    async def _post(self, session: aiohttp.ClientSession, path: str, asked: Any) -> Any:
        known = {"Authorization": f"Bearer {self.key}"}
        async with session.post(self.upstream + path, json=asked, headers=known) as answer:
            return await answer.json()

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        prompt = (asked or {}).get("prompt")
        usage = said.get("usage") if isinstance(said, dict) else None
        if isinstance(prompt, list):
            sent = len(prompt)
        else:
            sent = self.sent.get(json.dumps((asked or {}).get("messages")), 0)
        if usage and sent > LONG:
            usage["total_tokens"] += sent - usage["prompt_tokens"]
            usage["prompt_tokens"] = sent
        return status, said


@alteration("second-bos")
class SecondBos(Alteration):
    """Text prompts get one more special token than /tokenize says."""

    async def asks(self, session: aiohttp.ClientSession, path: str, body: Any) -> Any:
        if path == "/v1/completions" and isinstance(body.get("prompt"), str):
            asked = {"model": body.get("model"), "prompt": body["prompt"]}
            async with session.post(f"{self.upstream}/tokenize", json=asked) as answer:
                if answer.status == 200:
                    body["prompt"] = [0, *(await answer.json())["tokens"]]
        return body
