"""What a running server says: log-probabilities of given tokens, and greedy tokens."""

from __future__ import annotations

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
    said = _ask(http, "/tokenize", {"model": model, "prompt": text})
    return [int(token) for token in said["tokens"]]


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
        rows = said["choices"][0].get("prompt_logprobs") or []
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
    """Greedy continuations of `tokens` tokens, with the gap of the two best at each."""

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
        found = said["choices"][0]["logprobs"]
        if len(found["tokens"]) != tokens:
            raise ObservationError(f"{len(found['tokens'])} of {tokens} tokens for prompt {name}")
        gaps = []
        for top in found["top_logprobs"]:
            best = sorted(top.values(), reverse=True)
            gaps.append(best[0] - best[1] if len(best) > 1 else 0.0)
        return Greedy(name, tuple(found["tokens"]), tuple(gaps))

    return _each(one, prompts.items())


def _row(row: dict[str, Any] | None, token: int, name: str) -> tuple[float, int]:
    if not row or str(token) not in row:
        raise ObservationError(f"text {name}: no log-probability of token {token}")
    best = next((int(key) for key, entry in row.items() if entry["rank"] == 1), None)
    if best is None:
        raise ObservationError(f"text {name}: no most probable token at a position")
    return float(row[str(token)]["logprob"]), best


def _ask(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = http.post(path, json=body)
    if answer.status_code != 200:
        raise ObservationError(
            f"{path} answered {answer.status_code}: {answer.text[:200]}", asked=f"POST {path}"
        )
    return answer.json()


def _each(one: Any, items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(CONCURRENT) as pool:
        return list(pool.map(one, items))
