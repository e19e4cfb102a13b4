"""The texts whose tokens are scored: those of texts.toml, and made ones of the kinds R1 meets."""

from __future__ import annotations

import hashlib
import json
import random
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEXTS = Path(__file__).with_name("texts.toml")
SEED = 5
WORDS = [
    "river",
    "ledger",
    "harbour",
    "signal",
    "copper",
    "window",
    "answer",
    "engine",
    "meadow",
    "thunder",
    "paper",
    "bridge",
    "winter",
    "number",
    "cellar",
    "garden",
    "rudder",
    "needle",
    "market",
    "candle",
    "letter",
    "border",
    "orchard",
    "tunnel",
]


@cache
def texts() -> Mapping[str, str]:
    """The written texts by name."""
    return dict(tomllib.loads(TEXTS.read_text(encoding="utf-8"))["texts"])


def corpus(count: int) -> dict[str, str]:
    """The first `count` texts by name: the written ones, then made ones, the same in every run."""
    found = dict(list(texts().items())[:count])
    for number in range(count - len(found)):
        kind = list(KINDS)[number % len(KINDS)]
        made = KINDS[kind](random.Random(f"{SEED} {kind} {number}"))
        found[f"{kind}-{number}"] = made
    return found


def joined(count: int, seed: int) -> str:
    """One long text: `count` texts of the corpus, shuffled. For what lies far into a context."""
    chosen = list(corpus(count).values())
    random.Random(seed).shuffle(chosen)
    return "\n".join(chosen)


def digest(given: Mapping[str, str]) -> str:
    """12 hex digits over names and texts."""
    canonical = json.dumps(given, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _sums(draw: random.Random) -> str:
    lines, total = [], draw.randrange(10, 99)
    for _ in range(12):
        step, sign = draw.randrange(2, 60), draw.choice("+-*")
        after = {"+": total + step, "-": total - step, "*": total * (step % 7 + 2)}[sign]
        lines.append(f"{total} {sign} {step if sign != '*' else step % 7 + 2} = {after}")
        total = after % 997
        lines.append(f"{after} mod 997 = {total}")
    return "\n".join(lines)


def _table(draw: random.Random) -> str:
    names = draw.sample(WORDS, 8)
    rows = [f"| {name} | {draw.randrange(1000)} | {draw.random():.3f} |" for name in names]
    return "\n".join(["| name | count | share |", "|---|---|---|", *rows])


def _record(draw: random.Random) -> str:
    made = {
        name: [draw.randrange(100), draw.random() < 0.5, draw.choice(WORDS)]
        for name in draw.sample(WORDS, 6)
    }
    return json.dumps(made, indent=1)


def _code(draw: random.Random) -> str:
    one, two, three = draw.sample(WORDS, 3)
    return (
        f"class {one.title()}:\n    def __init__(self, {two}, limit={draw.randrange(90)}):\n"
        f"        self.{two} = {two}\n        self.limit = limit\n\n"
        f"    def {three}(self, values):\n        total = 0\n        for value in values:\n"
        f"            if value > self.limit:\n                raise ValueError(value)\n"
        f"            total += value * self.{two}\n        return total\n"
    )


def _story(draw: random.Random) -> str:
    lines = []
    for number in range(1, 10):
        one, two, three = draw.sample(WORDS, 3)
        lines.append(
            f"On day {number} the {one} was carried past the {two}, and {draw.randrange(2, 30)} "
            f"people asked about the {three}."
        )
    return " ".join(lines)


def _log(draw: random.Random) -> str:
    level = ("INFO", "WARNING", "DEBUG")
    return "\n".join(
        f"12:{draw.randrange(60):02}:{draw.randrange(60):02} {draw.choice(level)} "
        f"{draw.choice(WORDS)}[{draw.randrange(9999)}]: {draw.choice(WORDS)} took "
        f"{draw.randrange(900)} ms"
        for _ in range(10)
    )


def _proof(draw: random.Random) -> str:
    n = draw.randrange(3, 40)
    return (
        f"<think>\nWe need the sum of the first {n} odd numbers. The k-th odd number is 2k - 1, so "
        f"the sum is 2 * {n * (n + 1) // 2} - {n} = {n * n}. Check with n = 1: 1. With n = 2: "
        f"1 + 3 = 4. It holds, so the answer is {n}^2.\n</think>\n\nThe sum is {n * n}."
    )


KINDS: dict[str, Callable[[random.Random], str]] = {
    "sums": _sums,
    "proof": _proof,
    "code": _code,
    "story": _story,
    "table": _table,
    "record": _record,
    "log": _log,
}
