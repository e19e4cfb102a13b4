"""Needles: a fact somewhere in a long context, asked for at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.load.workloads import Tier
from acceptance.rehearsal.tasks import Task, needle

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LENGTHS = (4096, 32768, 131072)  # tokens, besides the longest
ANSWER = 512  # tokens that are left for the answer, as in max_model_len - 512
WITHIN = 0.03  # how near to a length a prompt comes
TRIES = 6


@dataclass(frozen=True)
class Needle:
    """length: tokens asked for. tokens: of the prompt as the server counts it."""

    length: int
    depth: float
    task: Task
    tokens: int


def lengths(longest: int, tier: str) -> list[int]:
    """Prompt lengths of a tier, tokens: the longest that leaves room for an answer, and those of
    LENGTHS that are shorter; smoke asks the longest alone, gate the shortest as well."""
    most = longest - ANSWER
    shorter = [length for length in LENGTHS if length < 0.9 * most]
    kept = {Tier.SMOKE: [], Tier.GATE: shorter[:1]}.get(Tier(tier), shorter)
    return [*kept, most]


def fitted(length: int, depth: float, seed: int, count: Callable[[str], int]) -> Needle:
    """A needle whose chat prompt is at most `length` tokens and nearly as long. count: tokens of a
    prompt as the server counts them, chat template included."""
    low, high, words = 0, length, int(length / 1.4)
    best: Needle | None = None
    for _ in range(TRIES):
        task = needle(words, depth, seed)
        tokens = count(task.prompt)
        if tokens > length:
            high = words
        else:
            low = words
            if best is None or tokens > best.tokens:
                best = Needle(length, depth, task, tokens)
            if tokens >= (1 - WITHIN) * length:
                break
        words = min(high - 1, max(low + 1, int(words * length / max(1, tokens) * 0.99)))
        if words <= low or high - low <= 1:
            break
    if best is None:
        task = needle(max(0, words // 2), depth, seed)
        best = Needle(length, depth, task, count(task.prompt))
    return best
