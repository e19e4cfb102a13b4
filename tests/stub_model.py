"""A language model that is pure arithmetic, and a server of it that can be wrong in named ways.

The model is the simulation's: what follows depends on every token before it. So a prompt scores as
it was written, and a prompt that lost its beginning, or another's, scores as something else.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import httpx

from acceptance.simulation.language import BOS, Distribution, digest, encode

LISTED = 12  # alternatives that a row holds
NOISE = 0.014  # nats: what bf16 makes of the rehearsal's log-probabilities
PAGE, LENGTH = 16, 2048
SCORE, SAY, CHAT = "score", "say", "chat"

Row = dict[int, float]  # token -> log-probability, the likeliest first
Wrong = Callable[[Row, int], Row]  # row, place -> row


def tokenize(text: str) -> list[int]:
    """A leading special token, then one token a character."""
    return [BOS, *encode(text)]


@lru_cache(maxsize=200_000)
def _top(state: int) -> tuple[tuple[int, float], ...]:
    return tuple(Distribution(state).top(LISTED))


def row_at(state: int, token: int | None) -> Row:
    """What may follow, with the given token in it."""
    row = dict(_top(state))
    if token is not None and token not in row:
        row[token] = max(-25.0, Distribution(state).logprob(token))
    return row


def rows(tokens: list[int]) -> list[Row]:
    """What the model says of every token but the first."""
    made, state = [], 0
    for before, token in pairwise(tokens):
        state = digest([before], state)
        made.append(row_at(state, token))
    return made


def exact(row: Row, place: int) -> Row:
    return row


def noisy(sigma: float = NOISE, flips: float = 0.0, seed: int = 1) -> Wrong:
    """Gaussian noise on every log-probability, and a share of places where the two best swap."""

    def wrong(row: Row, place: int) -> Row:
        draw = random.Random(f"{seed} {place} {next(iter(row))}")
        made = {token: value + draw.gauss(0, sigma) for token, value in row.items()}
        gained = _mass(made) - _mass(row)
        made = {token: value - gained for token, value in made.items()}
        if draw.random() < flips:
            first, second = sorted(made, key=lambda t: -made[t])[:2]
            made[first], made[second] = made[second], made[first]
        return made

    return wrong


def scaled(temperature: float) -> Wrong:
    """Log-probabilities of another temperature, renormalised over what is listed."""

    def wrong(row: Row, place: int) -> Row:
        made = {token: value / temperature for token, value in row.items()}
        return {token: value - _mass(made) for token, value in made.items()}

    return wrong


def _mass(row: Row) -> float:
    return math.log(sum(map(math.exp, row.values())))


def lost(row: Row, place: int) -> Row:
    """No number at one place."""
    return dict.fromkeys(row, math.nan) if place == 5 else row


BF16 = noisy()
EXPERT = noisy(sigma=0.3, flips=0.2)  # one expert of sixteen lost
WRONG: dict[str, dict[str, Any]] = {
    "another temperature": {"wrong": scaled(0.8)},
    "a truncated prompt": {"truncated": 3},
    "one expert of sixteen lost": {"wrong": EXPERT},
    "a value that is no number": {"wrong": lost},
}


@dataclass
class Stub:
    """vLLM's routes over the model.

    wrong: of every row; decoded: of generated tokens as well, and greedy tokens follow it.
    again: instead of wrong when a prompt is scored the second time. ranks: by the header's value.
    truncated: tokens of a prompt that are lost behind its first. crossed: every n-th greedy answer
    is the one to an earlier prompt, where others are in flight. stale: a prompt asked again is
    answered as an earlier one. begins: tokens; prompts that begin with the same ones are answered
    as the first of them. chats: what a chat is answered with, by its last message. edit: has
    the last word on an answer's JSON.
    """

    wrong: Wrong = exact
    decoded: Wrong | None = None
    again: Wrong | None = None
    ranks: dict[str, Wrong] = field(default_factory=dict)
    truncated: int = 0
    crossed: int = 0
    stale: bool = False
    begins: int = 0
    salted: bool = True
    engines: int = 1
    routed: bool = True
    caching: bool = False
    kv_tokens: int = 4096
    preempts: int = 0
    drift: bool = False
    chats: Callable[[str], dict[str, Any]] = lambda prompt: {"content": "Paris"}
    status: int = 200
    edit: Callable[[dict[str, Any]], Any] = lambda body: body
    seen: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    said: list[list[int]] = field(default_factory=list)
    cache: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def client(self) -> httpx.Client:
        transport = httpx.MockTransport(self.handle)
        return httpx.Client(transport=transport, base_url="http://server.test")

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/metrics":
            return httpx.Response(200, text=self.metrics())
        body = json.loads(request.content)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "EngineDeadError"}})
        with self.lock:
            said = self.answer(request, body)
        text = json.dumps(self.edit(said))  # as vLLM would write it, NaN included
        kind = "text/event-stream" if body.get("stream") else "application/json"
        return httpx.Response(200, content=text, headers={"content-type": kind})

    def answer(self, request: httpx.Request, body: dict[str, Any]) -> Any:
        path = request.url.path
        if path == "/tokenize":
            text = body.get("prompt") or body["messages"][-1]["content"]
            return {"tokens": tokenize(text)}
        rank = request.headers.get("X-data-parallel-rank")
        if path == "/v1/chat/completions":
            return self.chat(body)
        prompt = body["prompt"]
        engine = rank if rank is not None and self.routed else "0"
        self.counters[f"prompt_tokens_total {engine}"] += len(prompt)
        wrong = self.ranks.get(rank or "", self.wrong)
        if "prompt_logprobs" in body:
            return {"choices": [{"prompt_logprobs": self.scored(prompt, wrong)}]}
        return {"choices": [{"logprobs": self.greedy(body, self.decoded or wrong)}]}

    def scored(self, tokens: list[int], wrong: Wrong) -> list[Any]:
        key = (SCORE, *tokens)
        self.seen[key] += 1
        if self.again and self.seen[key] > 1:
            wrong = self.again
        cut = self.truncated
        kept = [tokens[0], *tokens[1 + cut :]] if cut else tokens
        made: list[Any] = [None]
        found = [row_at(0, token) for token in tokens[1 : 1 + cut]] + rows(kept)
        for place, (row, token) in enumerate(zip(found, tokens[1:], strict=True), start=1):
            changed = wrong(row, place)
            changed.setdefault(token, -25.0)
            order = sorted(changed, key=lambda t: -changed[t])
            made.append(
                {
                    str(t): {"logprob": changed[t], "rank": order.index(t) + 1}
                    for t in dict.fromkeys([*order[:8], token])
                }
            )
        return made

    def greedy(self, body: dict[str, Any], wrong: Wrong) -> dict[str, Any]:
        prompt, count = list(body["prompt"]), body["max_tokens"]
        asked = list(prompt)
        self.said.append(asked)
        self.counters["num_preemptions_total 0"] += self.preempts
        if self.caching:
            salt = body.get("cache_salt") if self.salted else None
            key = (salt, *asked)
            if key in self.cache:
                self.counters["prefix_cache_hits_total 0"] += len(asked)
                prompt = self.cache[key] if self.stale else prompt
            other = next(iter(self.cache.values()), asked)
            self.cache[key] = other
        if self.begins:
            prompt = self.cache.setdefault(tuple(asked[: self.begins]), prompt)
        if self.crossed and len(self.said) % self.crossed == 0 and len(self.said) > 1:
            prompt = list(self.said[-2])
        state = digest(prompt)
        tokens, own, tops = [], [], []
        for place in range(count):
            row = wrong(row_at(state, None), 1000 + place)
            order = sorted(row, key=lambda t: -row[t])
            token = order[0]
            tokens.append(token)
            own.append(row[token])
            tops.append({f"token_id:{t}": row[t] for t in order[:2]})
            state = digest([token], state)
        names = [f"token_id:{token}" for token in tokens]
        return {"tokens": names, "token_logprobs": own, "top_logprobs": tops}

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["messages"][-1]["content"]
        self.seen[CHAT] += 1
        said = {"finish_reason": "stop", "reasoning": "I think.", "content": None}
        said |= self.chats(prompt)
        finish, tokens = said.pop("finish_reason"), said.pop("tokens", None)
        count = len(tokens or (said["content"] or "") + (said["reasoning"] or ""))
        salt = "" if not body.get("temperature") else f"{body.get('seed')}"
        if self.drift:
            salt += str(self.seen[CHAT])
        draw = random.Random(f"{prompt} {salt}")
        if tokens is None:
            tokens = [draw.randrange(6, 100) for _ in range(min(count, body["max_tokens"]))]
        listed = [
            {
                "token": f"token_id:{token}",
                "logprob": -0.3,
                "top_logprobs": [{"token": "a", "logprob": -0.3}, {"token": "b", "logprob": -2.0}],
            }
            for token in tokens
        ]
        return {
            "id": f"chat-{self.seen[CHAT]}",
            "choices": [
                {"message": said, "finish_reason": finish, "logprobs": {"content": listed}}
            ],
            "usage": {"completion_tokens": count, "prompt_tokens": len(prompt)},
        }

    def metrics(self) -> str:
        names = ("prompt_tokens_total", "num_preemptions_total", "prefix_cache_hits_total")
        lines = [
            f'vllm:{name}{{engine="{engine}"}} {self.counters[f"{name} {engine}"]}'
            for name in names
            for engine in range(self.engines)
        ]
        lines += [
            f'vllm:cache_config_info{{engine="{engine}",block_size="{PAGE}"}} 1'
            for engine in range(self.engines)
        ]
        return "\n".join(lines) + "\n"
