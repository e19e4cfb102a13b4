"""Log-probabilities: that they are probabilities, in order, of the tokens that were generated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

OVER_ONE = 1e-3  # by how much rounding may carry a sum of probabilities over 1


@dataclass(frozen=True)
class Scored:
    """One generated token. top: alternatives with their log-probabilities, as listed."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


def scored_chat(choice: dict[str, Any]) -> list[Scored]:
    """From a chat choice. Raises LookupError or TypeError when it brings none."""
    return [
        Scored(
            entry["token"],
            entry["logprob"],
            tuple((top["token"], top["logprob"]) for top in entry["top_logprobs"]),
        )
        for entry in choice["logprobs"]["content"]
    ]


def scored_completion(choice: dict[str, Any]) -> list[Scored]:
    """From a text completion's choice. Raises as scored_chat."""
    found = choice["logprobs"]
    rows = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
    return [Scored(token, logprob, tuple(top.items())) for token, logprob, top in rows]


def logprob_problems(scored: Sequence[Scored], *, tokens: int, top: int) -> list[str]:
    """tokens: as usage counts them. top: how many alternatives were asked for. For greedy
    requests: the chosen token is the likeliest."""
    if len(scored) != tokens:
        return [f"{len(scored)} entries for {tokens} tokens"]
    problems = []
    for number, one in enumerate(scored):
        values = [value for _, value in one.top]
        if not all(math.isfinite(value) and value <= 0 for value in (one.logprob, *values)):
            problems.append(f"token {number}: not log-probabilities: {one.logprob}, {values}")
            continue
        if len(values) < top:
            problems.append(f"token {number}: {len(values)} alternatives, not {top}")
        if values != sorted(values, reverse=True):
            problems.append(f"token {number}: alternatives are not sorted: {values}")
        if sum(map(math.exp, values)) > 1 + OVER_ONE:
            problems.append(f"token {number}: probabilities sum to more than 1")
        if not top:
            problems += [f"token {number}: {len(values)} alternatives unasked"] if values else []
        elif not values or one.logprob != values[0] or (one.token, one.logprob) not in one.top:
            problems.append(f"token {number}: {one.token!r} is not the likeliest of its list")
    return problems


def bytes_problems(choice: dict[str, Any]) -> list[str]:
    """The bytes of each token are its text. Tokens that hold part of a character are left out."""
    problems = []
    for number, entry in enumerate(choice["logprobs"]["content"]):
        told = bytes(entry["bytes"] or ()).decode(errors="replace")
        if "\ufffd" not in told + entry["token"] and told != entry["token"]:
            problems.append(f"token {number}: bytes say {told!r}, token is {entry['token']!r}")
    return problems


def offset_problems(choice: dict[str, Any]) -> list[str]:
    """Tokens put together are the text, and text_offset says where each begins."""
    found, position = choice["logprobs"], 0
    problems = []
    if "".join(found["tokens"]) != choice["text"]:
        problems.append(f"tokens make {''.join(found['tokens'])!r}, text is {choice['text']!r}")
    if len(found["text_offset"]) != len(found["tokens"]):
        return [*problems, f"{len(found['text_offset'])} offsets for {len(found['tokens'])} tokens"]
    for number, (offset, token) in enumerate(
        zip(found["text_offset"], found["tokens"], strict=True)
    ):
        if offset != position:
            problems.append(f"token {number} begins at {position}, text_offset is {offset}")
        position += len(token)
    return problems


def prompt_problems(found: list[dict[str, Any] | None] | None, prompt: Sequence[int]) -> list[str]:
    """prompt_logprobs of a prompt given as token ids: nothing for the first, and the prompt's own
    token, with a log-probability, for every other."""
    if not found or len(found) != len(prompt):
        return [f"{len(found or ())} entries for a prompt of {len(prompt)} tokens"]
    problems = [] if found[0] is None else ["the first token has a log-probability"]
    for number, (entry, token) in enumerate(zip(found[1:], prompt[1:], strict=True), start=1):
        own = (entry or {}).get(str(token))
        if own is None:
            problems.append(f"token {number}: its own id {token} is not listed")
        elif not (math.isfinite(own["logprob"]) and own["logprob"] <= 0):
            problems.append(f"token {number}: no log-probability: {own['logprob']}")
    return problems


def echo_problems(answer: dict[str, Any], *, text: str, prompt: int) -> list[str]:
    """Of echo with max_tokens=0. text, prompt: the prompt and its number of tokens."""
    choice = answer["choices"][0]
    found = (choice.get("logprobs") or {}).get("token_logprobs") or []
    problems = []
    if choice.get("text") != text:
        problems.append(f"says {choice.get('text')!r}, not {text!r}")
    if len(found) != prompt:
        return [*problems, f"{len(found)} log-probabilities for {prompt} tokens"]
    if found[0] is not None:
        problems.append(f"the first token has the log-probability {found[0]}")
    if not all(isinstance(value, float | int) and value <= 0 for value in found[1:]):
        problems.append(f"not log-probabilities: {found[1:]}")
    return problems


def asked_ids_problems(choice: dict[str, Any], asked: int) -> list[str]:
    """Of logprob_token_ids: at each position as many entries as ids were asked for, or one more
    for the generated token."""
    problems = []
    for number, entry in enumerate(choice["logprobs"]["content"]):
        listed = len(entry.get("top_logprobs") or ())
        if listed not in (asked, asked + 1):
            problems.append(f"token {number}: {listed} listed, {asked} asked for")
    return problems
