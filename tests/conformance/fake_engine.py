"""What the fake server generates: one token a character, the same for the same request."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass, field
from typing import Any

from fake_tokens import BOS, EOS, FIRST, encode, shown

NATURAL_END = 40  # tokens after which the fake model ends by itself
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DEFAULTS = {"temperature": 0.6, "top_p": 0.95}  # R1's

_calls = itertools.count()


@dataclass
class Generated:
    """shown: the part of text that is told, cut at a stop string. script: tokens that were known
    before; empty for noise."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    shown: str = ""
    finish_reason: str = "length"
    stop_reason: str | int | None = None
    scripted: bool = False


def cap_of(body: dict[str, Any], breaks: set[str]) -> int:
    cap = body.get("max_tokens")
    if "max-completion-tokens-ignored" not in breaks:
        cap = body.get("max_completion_tokens") or cap
    cap = 16 if cap is None else cap
    return cap - 1 if "one-token-short" in breaks and cap > 1 else cap


def generate(
    prompt: list[int], body: dict[str, Any], choice: int, breaks: set[str], script: list[int] | None
) -> Generated:
    found = Generated(prompt, scripted=script is not None)
    ends = not body.get("ignore_eos") or "eos-not-ignored" in breaks
    stops = [] if "stop-ignored" in breaks else body.get("stop") or []
    stop_ids = [] if "stop-token-ignored" in breaks else body.get("stop_token_ids") or []
    least = 0 if "min-tokens-ignored" in breaks else body.get("min_tokens") or 0
    stream = script if script is not None else _noise(prompt, body, choice, breaks)
    for index, token in enumerate(itertools.islice(stream, cap_of(body, breaks))):
        if script is None and ends and index == NATURAL_END:
            token = EOS
        if token in stop_ids and index < least:
            token += 1
        found.tokens.append(token)
        text = shown(found.tokens)
        hit = next((stop for stop in stops if stop in text), None)
        if hit:
            found.finish_reason, found.stop_reason = "stop", hit
            kept = body.get("include_stop_str_in_output") or "stop-kept" in breaks
            found.shown = text[: text.index(hit) + (len(hit) if kept else 0)]
            break
        if token in stop_ids:
            found.finish_reason, found.stop_reason = "stop", token
            break
        if token == EOS:
            found.finish_reason = "stop"
            break
    if not isinstance(found.stop_reason, str):
        found.shown = shown(found.tokens)
    if "only-bos" in breaks:
        found.tokens, found.shown = [BOS] * len(found.tokens), ""
    if "stop-reason-missing" in breaks:
        found.stop_reason = None
    if "never-stops" in breaks and found.finish_reason == "stop":
        found.finish_reason = "length"
    return found


def _noise(prompt: list[int], body: dict[str, Any], choice: int, breaks: set[str]) -> Any:
    key = f"{prompt}{_salt(body, choice, breaks)}"
    bias = {} if "bias-ignored" in breaks else body.get("logit_bias") or {}
    forced = next((int(token) for token, value in bias.items() if value > 0), None)
    if "allowed-ignored" not in breaks:
        forced = next(iter(body.get("allowed_token_ids") or ()), forced)
    avoided = {int(token) for token, value in bias.items() if value < 0}
    if "bad-words-ignored" not in breaks:
        avoided |= {encode(word)[0] for word in body.get("bad_words") or ()}
    for index in itertools.count():
        number = zlib.crc32(f"{key}{index}".encode()) % len(LETTERS)
        token = FIRST + ord(LETTERS[number])
        if token in avoided:
            token = FIRST + ord(LETTERS[(number + 1) % len(LETTERS)])
        yield token if forced is None else forced


def _salt(body: dict[str, Any], choice: int, breaks: set[str]) -> str:
    if "unstable" in breaks:
        return f"call {next(_calls)}"
    usual = {"temperature": 1.0, "top_p": 1.0} if "vllm-defaults" in breaks else DEFAULTS
    temperature = usual["temperature"] if (t := body.get("temperature")) is None else t
    top_p = usual["top_p"] if (p := body.get("top_p")) is None else p
    if not temperature or "temperature-ignored" in breaks:
        return ""
    if "seed-ignored" in breaks:
        return f"call {next(_calls)} {choice}"
    return f"seed {body.get('seed')} {choice} {float(temperature)} {float(top_p)}"
