"""The longest requests that a deployment allows, several at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 32  # requests


@dataclass(frozen=True)
class Answered:
    """status: of HTTP, 0 for none. prompt: tokens that the server counted; -1 when it told none.
    error: for a person, empty when there is none."""

    status: int
    prompt: int
    error: str = ""

    def whole(self, length: int) -> bool:
        return self.status == 200 and self.prompt == length


def how_many(length: int, batched: int) -> int:
    """Requests that fill a step of `batched` tokens, and one more to wait for the next."""
    return min(MOST, max(2, -(-batched // length) + 1))


def longest_prompts(
    http: httpx.Client, model: str, length: int, count: int, tokens: Sequence[int]
) -> list[Answered]:
    """Sends `count` different prompts of `length` tokens at once and asks one token of each.
    tokens: ids to draw from."""
    drawn = random.Random(length)
    prompts = [drawn.choices(tokens, k=length) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda prompt: _ask(http, model, prompt), prompts))


def _ask(http: httpx.Client, model: str, prompt: Sequence[int]) -> Answered:
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "ignore_eos": True}
    try:
        answer = http.post("/v1/completions", json=body)
    except httpx.HTTPError as error:
        return Answered(0, -1, repr(error))
    if answer.status_code != 200:
        return Answered(answer.status_code, -1, answer.text[:300])
    try:
        return Answered(200, int(answer.json()["usage"]["prompt_tokens"]))
    except (ValueError, KeyError, TypeError) as error:
        return Answered(200, -1, repr(error))
