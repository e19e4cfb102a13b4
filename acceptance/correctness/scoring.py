"""What a running server says: log-probabilities of given tokens, and greedy tokens."""

from __future__ import annotations

import math
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx

TEXTS = Path(__file__).with_name("texts.toml")
CONCURRENT = 4


@dataclass(frozen=True)
class Scored:
    """Per position from the second token on: the log-probability (nats) of the given token, and
    the id of the most probable one. tokens: ids of the whole text, the first one unscored."""

    name: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    best: tuple[int, ...]


@dataclass(frozen=True)
class Greedy:
    """Greedy tokens of one prompt, as text pieces. gaps: per token, how far (nats) the best lies
    above the second best; the last piece of evidence when two layouts split."""

    name: str
    tokens: tuple[str, ...]
    gaps: tuple[float, ...]


def texts() -> dict[str, str]:
    """The shipped texts by name."""
    return dict(tomllib.loads(TEXTS.read_text(encoding="utf-8"))["texts"])


def tokenize(http: httpx.Client, model: str, text: str) -> list[int]:
    """Token ids as the server itself counts them, its leading special token included."""
    tokens = _ask(http, "/tokenize", {"model": model, "prompt": text}).get("tokens")
    if not isinstance(tokens, list) or len(tokens) < 2:
        raise ObservationError(f"/tokenize gave {tokens!r} for {text[:40]!r}", asked="two tokens")
    return [int(token) for token in tokens]


def score(http: httpx.Client, model: str, prompts: Mapping[str, Sequence[int]]) -> list[Scored]:
    """Teacher-forced log-probabilities of each prompt (token ids by name), several at a time.

    Raises ObservationError when any position lacks its value: a gap is never a match.
    """

    def one(item: tuple[str, Sequence[int]]) -> Scored:
        name, tokens = item
        said = _ask(
            http,
            "/v1/completions",
            {
                "model": model,
                "prompt": list(tokens),
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 1,
            },
        )
        rows = _choice(said, name).get("prompt_logprobs") or []
        if len(rows) != len(tokens):
            raise ObservationError(
                f"{len(rows)} prompt log-probabilities for {len(tokens)} tokens of text {name}"
            )
        picked = [_row(row, token, name) for row, token in zip(rows[1:], tokens[1:], strict=True)]
        return Scored(name, tuple(tokens), tuple(p[0] for p in picked), tuple(p[1] for p in picked))

    return _each(one, prompts.items())


def greedy(
    http: httpx.Client, model: str, prompts: Mapping[str, Sequence[int]], tokens: int
) -> list[Greedy]:
    """Greedy continuations of `tokens` tokens, with the gap of the two best at each.

    Raises ObservationError when a token or either of its two best log-probabilities is missing: a
    gap of nothing would excuse every difference.
    """

    def one(item: tuple[str, Sequence[int]]) -> Greedy:
        name, prompt = item
        said = _ask(
            http,
            "/v1/completions",
            {
                "model": model,
                "prompt": list(prompt),
                "max_tokens": tokens,
                "temperature": 0,
                "logprobs": 2,
                "ignore_eos": True,
                "return_tokens_as_token_ids": True,
            },
        )
        found = _choice(said, name).get("logprobs") or {}
        given, tops = found.get("tokens") or [], found.get("top_logprobs") or []
        if len(given) != tokens or len(tops) != tokens:
            raise ObservationError(
                f"{len(given)} of {tokens} tokens for prompt {name}, {len(tops)} with alternatives"
            )
        return Greedy(name, tuple(given), tuple(_gap(top, name) for top in tops))

    return _each(one, prompts.items())


def _choice(said: Any, name: str) -> dict[str, Any]:
    choices = said.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise ObservationError(f"{name}: not one choice came back, but {choices!r}"[:300])
    return dict(choices[0])


def _row(row: dict[str, Any] | None, token: int, name: str) -> tuple[float, int]:
    given = (row or {}).get(str(token)) or {}
    if not row or given.get("logprob") is None:
        raise ObservationError(f"text {name}: no log-probability of token {token}")
    best = next((int(key) for key, entry in row.items() if entry.get("rank") == 1), None)
    if best is None:
        raise ObservationError(f"text {name}: no most probable token at a position")
    return float(given["logprob"]), best


def _gap(top: dict[str, float | None] | None, name: str) -> float:
    values = [float("nan") if value is None else value for value in (top or {}).values()]
    best = sorted(values, reverse=True)
    if len(best) < 2 or not all(map(math.isfinite, best)):
        raise ObservationError(f"prompt {name}: not two log-probabilities at a token, but {top}")
    return best[0] - best[1]


def _ask(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json=body)
    if answer.status_code != 200:
        raise ObservationError(
            f"{path} answered {answer.status_code}: {answer.text[:200]}", asked=f"POST {path}"
        )
    try:
        return dict(answer.json())
    except (ValueError, TypeError) as error:
        raise ObservationError(
            f"{path} answered 200 without a JSON object: {answer.text[:200]}", asked=f"POST {path}"
        ) from error


def _each(one: Any, items: Iterable[Any]) -> list[Any]:
    pool = ThreadPoolExecutor(CONCURRENT)
    try:
        return list(pool.map(one, items))
    finally:  # a test that fails, or is interrupted, does not wait for requests that hang
        pool.shutdown(wait=False, cancel_futures=True)
