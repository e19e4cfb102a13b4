"""A language model that is pure arithmetic, and a server of it that can be wrong in named ways."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

VOCABULARY = 512
NOISE = 0.014  # nats: what bf16 makes of the rehearsal's log-probabilities


def share(*of: object) -> float:
    """A number of [0, 1) that its arguments decide."""
    digest = hashlib.blake2b(repr(of).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def tokenize(text: str) -> list[int]:
    """A leading special token, then one token a byte."""
    return [0, *(byte + 1 for byte in text.encode())]


def truth(tokens: list[int], place: int) -> tuple[float, int]:
    """Log-probability of the token at a place, and the most probable token there."""
    token, before = tokens[place], tuple(tokens[max(0, place - 3) : place])
    likely = share(token, before) < 0.4
    best = token if likely else (token + 7) % VOCABULARY
    return (
        -0.1 - 0.6 * share("l", token, before) if likely else -1.5 - 4 * share(token, before)
    ), best


Wrong = Callable[[float, int, int], tuple[float, int]]  # log-probability, best, place -> both


def exact(logprob: float, best: int, place: int) -> tuple[float, int]:
    return logprob, best


def noisy(sigma: float = NOISE, flips: float = 0.02, seed: int = 1) -> Wrong:
    """Gaussian noise on every log-probability, and a share of positions with another best token."""

    def wrong(logprob: float, best: int, place: int) -> tuple[float, int]:
        draw = random.Random(f"{seed} {logprob} {best} {place}")
        flipped = draw.random() < flips
        return logprob + draw.gauss(0, sigma), (best + 1) % VOCABULARY if flipped else best

    return wrong


def scaled(temperature: float) -> Wrong:
    """Log-probabilities of another temperature, as far as one of them tells."""
    return lambda logprob, best, place: (logprob / temperature, best)


def lost(logprob: float, best: int, place: int) -> tuple[float, int]:
    """No number at one place."""
    return (math.nan if place == 5 else logprob), best


@dataclass
class Stub:
    """vLLM's /tokenize and /v1/completions. wrong: of log-probabilities; again: of those when the
    same prompt is scored again. split: greedy token at which the continuation turns, and the gap
    there. edit: has the last word on an answer's JSON."""

    wrong: Wrong = exact
    again: Wrong | None = None
    shifted: bool = False
    split: tuple[int, float] | None = None
    status: int = 200
    edit: Callable[[dict[str, Any]], Any] = lambda body: body
    scored: set[tuple[int, ...]] = field(default_factory=set)

    def client(self) -> httpx.Client:
        transport = httpx.MockTransport(self.handle)
        return httpx.Client(transport=transport, base_url="http://server.test")

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "EngineDeadError"}})
        if request.url.path == "/tokenize":
            said: Any = {"tokens": tokenize(body["prompt"])}
        elif "prompt_logprobs" in body:
            said = {"choices": [{"prompt_logprobs": self._rows(body["prompt"])}]}
        else:
            said = {"choices": [{"logprobs": self._greedy(body["prompt"], body["max_tokens"])}]}
        text = json.dumps(self.edit(said))  # as vLLM would write it, NaN included
        return httpx.Response(200, content=text, headers={"content-type": "application/json"})

    def _rows(self, tokens: list[int]) -> list[Any]:
        second = tuple(tokens) in self.scored
        self.scored.add(tuple(tokens))
        wrong = self.again if second and self.again else self.wrong
        rows: list[Any] = [None]
        for place in range(1, len(tokens)):
            from_place = max(1, place - 1) if self.shifted else place
            logprob, _ = truth(tokens, from_place)
            logprob, best = wrong(logprob, truth(tokens, place)[1], place)
            row = {
                str(tokens[place]): {"logprob": logprob, "rank": 1 if best == tokens[place] else 9}
            }
            if best != tokens[place]:
                row[str(best)] = {"logprob": -0.05, "rank": 1}
            rows.append(row)
        return rows

    def _greedy(self, prompt: list[int], count: int) -> dict[str, Any]:
        turned, gap_there = self.split or (count, 0.0)
        tokens, tops = [], []
        for place in range(count):
            gap = 0.2 + 3 * share("gap", tuple(prompt), place)
            token = int(VOCABULARY * share(tuple(prompt), place))
            if place >= turned:
                token, gap = (token + 1) % VOCABULARY, gap_there
            tokens.append(f"token_id:{token}")
            tops.append({f"token_id:{token}": -0.1, f"token_id:{token + 1}": -0.1 - gap})
        return {"tokens": tokens, "top_logprobs": tops}
