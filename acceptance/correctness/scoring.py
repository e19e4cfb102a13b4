"""What a running server says of given tokens (prefill), and of its own (decode)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acceptance.correctness.asking import CONCURRENT, ask, choice, each
from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

TOP = 8  # alternatives asked for at each position; vLLM's default limit is 20
PREFIX = "token_id:"


@dataclass(frozen=True)
class Scored:
    """Per position from the second token on: the log-probability (nats) of the given token, the id
    of the most probable one, and the most probable ids with theirs, the given token among them.
    tokens: ids of the whole text, the first one unscored."""

    name: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    best: tuple[int, ...]
    tops: tuple[dict[int, float], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Greedy:
    """Greedy tokens of one prompt. logprobs: of each, nats. gaps: how far the best lies above the
    second best; the last piece of evidence when two continuations split."""

    name: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    gaps: tuple[float, ...]


def tokenize(http: httpx.Client, model: str, text: str) -> list[int]:
    """Token ids as the server itself counts them, its leading special token included."""
    tokens = ask(http, "/tokenize", {"model": model, "prompt": text}).get("tokens")
    if not isinstance(tokens, list) or len(tokens) < 2:
        raise ObservationError(f"/tokenize gave {tokens!r} for {text[:40]!r}", asked="two tokens")
    return [int(token) for token in tokens]


def score(
    http: httpx.Client,
    model: str,
    prompts: Mapping[str, Sequence[int]],
    *,
    concurrent: int = CONCURRENT,
    top: int = TOP,
    headers: Mapping[str, str] | None = None,
) -> list[Scored]:
    """Teacher-forced log-probabilities of each prompt (token ids by name), `concurrent` at a time.

    Raises ObservationError when any position lacks its value: a gap is never a match.
    """

    def one(item: tuple[str, Sequence[int]]) -> Scored:
        name, tokens = item
        body = {
            "model": model,
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": top,
        }
        said = ask(http, "/v1/completions", body, headers)
        rows = choice(said, name).get("prompt_logprobs") or []
        if len(rows) != len(tokens):
            raise ObservationError(
                f"{len(rows)} prompt log-probabilities for {len(tokens)} tokens of text {name}"
            )
        found = [_row(row, token, name) for row, token in zip(rows[1:], tokens[1:], strict=True)]
        logprobs, best, tops = zip(*found, strict=True) if found else ((), (), ())
        return Scored(name, tuple(tokens), logprobs, best, tops)

    return each(one, prompts.items(), concurrent)


def greedy(
    http: httpx.Client,
    model: str,
    prompts: Mapping[str, Sequence[int]],
    tokens: int,
    *,
    concurrent: int = CONCURRENT,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> list[Greedy]:
    """Greedy continuations of `tokens` tokens, with the gap of the two best at each. extra: further
    fields of the requests.

    Raises ObservationError when a token or either of its two best log-probabilities is missing: a
    gap of nothing would excuse every difference.
    """

    def one(item: tuple[str, Sequence[int]]) -> Greedy:
        name, prompt = item
        body = {**greedy_body(model, prompt, tokens), **(extra or {})}
        return read_greedy(ask(http, "/v1/completions", body, headers), name, prompt, tokens)

    return each(one, prompts.items(), concurrent)


def greedy_body(model: str, prompt: Sequence[int], tokens: int) -> dict[str, Any]:
    """A request for exactly so many greedy tokens, with their ids and alternatives."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": tokens,
        "temperature": 0,
        "logprobs": 2,
        "ignore_eos": True,
        "return_tokens_as_token_ids": True,
    }


def read_greedy(said: Mapping[str, Any], name: str, prompt: Sequence[int], tokens: int) -> Greedy:
    """The answer to greedy_body(). Raises ObservationError for a token without its values."""
    found = choice(said, name).get("logprobs") or {}
    given, tops = found.get("tokens") or [], found.get("top_logprobs") or []
    own = found.get("token_logprobs") or []
    if len(given) != tokens or len(tops) != tokens or len(own) != tokens:
        raise ObservationError(
            f"{len(given)} of {tokens} tokens for prompt {name}, {len(own)} with their "
            f"log-probability, {len(tops)} with alternatives"
        )
    if None in own or not all(str(token).startswith(PREFIX) for token in given):
        raise ObservationError(f"prompt {name}: a token lacks its id or log-probability")
    return Greedy(
        name,
        tuple(prompt),
        tuple(map(token_id, given)),
        tuple(map(float, own)),
        tuple(_gap(top, name) for top in tops),
    )


def token_id(token: str) -> int:
    """Of a token that came as its id: return_tokens_as_token_ids."""
    return int(token.removeprefix(PREFIX))


def _row(row: dict[str, Any] | None, token: int, name: str) -> tuple[float, int, dict[int, float]]:
    given = (row or {}).get(str(token)) or {}
    if not row or given.get("logprob") is None:
        raise ObservationError(f"text {name}: no log-probability of token {token}")
    best = next((int(key) for key, entry in row.items() if entry.get("rank") == 1), None)
    if best is None:
        raise ObservationError(f"text {name}: no most probable token at a position")
    top = {int(k): float(v["logprob"]) for k, v in row.items() if v.get("logprob") is not None}
    return float(given["logprob"]), best, top


def _gap(top: dict[str, float | None] | None, name: str) -> float:
    values = [float("nan") if value is None else value for value in (top or {}).values()]
    best = sorted(values, reverse=True)
    if len(best) < 2 or not all(map(math.isfinite, best)):
        raise ObservationError(f"prompt {name}: not two log-probabilities at a token, but {top}")
    return best[0] - best[1]
