"""What the fake server generates: one token a character, the same for the same request."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass, field
from typing import Any

BOS, EOS, USER, ASSISTANT = 0, 1, 3, 4
VOCABULARY = 768
NATURAL_END = 40  # tokens after which the fake model ends by itself
LETTERS = "abcdefghijklmnopqrstuvwxyz"

_calls = itertools.count()


def encode(text: str) -> list[int]:
    return [min(ord(character), VOCABULARY - 1) for character in text]


def decode(tokens: list[int]) -> str:
    return "".join(chr(token) for token in tokens if token > ASSISTANT)


def render(messages: list[dict[str, Any]]) -> list[int]:
    """BOS, each message behind its role, and the place of the answer."""
    tokens = [BOS]
    for message in messages:
        tokens += [USER if message["role"] == "user" else ASSISTANT, *encode(message["content"])]
    return [*tokens, ASSISTANT]


@dataclass
class Generated:
    """shown: the part of text that is told, cut at a stop string."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    shown: str = ""
    finish_reason: str = "length"
    stop_reason: str | None = None


def generate(prompt: list[int], body: dict[str, Any], choice: int, breaks: set[str]) -> Generated:
    found = Generated(prompt)
    cap = body.get("max_completion_tokens") or body.get("max_tokens") or 16
    if "max-completion-tokens-ignored" in breaks:
        cap = body.get("max_tokens") or 16
    if "one-token-short" in breaks and cap > 1:
        cap -= 1
    key = f"{prompt}{_salt(body, choice, breaks)}"
    ends = not body.get("ignore_eos") or "eos-not-ignored" in breaks
    stops = [] if "stop-ignored" in breaks else body.get("stop") or []
    for index in range(cap):
        if ends and index == NATURAL_END:
            found.tokens.append(EOS)
            found.finish_reason = "stop"
            break
        found.tokens.append(ord(LETTERS[zlib.crc32(f"{key}{index}".encode()) % len(LETTERS)]))
        text = decode(found.tokens)
        hit = next((stop for stop in stops if stop in text), None)
        if hit:
            found.finish_reason, found.stop_reason = "stop", hit
            kept = body.get("include_stop_str_in_output") or "stop-kept" in breaks
            found.shown = text[: text.index(hit) + (len(hit) if kept else 0)]
            break
    else:
        text = decode(found.tokens)
    if found.stop_reason is None:
        found.shown = decode(found.tokens)
    if "only-bos" in breaks:
        found.tokens, found.shown = [BOS] * len(found.tokens), ""
    if "stop-reason-missing" in breaks:
        found.stop_reason = None
    return found


def _salt(body: dict[str, Any], choice: int, breaks: set[str]) -> str:
    if "unstable" in breaks:
        return f"call {next(_calls)}"
    if not body.get("temperature", 1) or "temperature-ignored" in breaks:
        return ""
    if "seed-ignored" in breaks:
        return f"call {next(_calls)} {choice}"
    return f"seed {body.get('seed')} {choice}"
