"""When a generated text is no longer language: loops, collapse, nothing but special tokens, no
content. Pure."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("degenerate.toml")
LONGEST = 200  # characters of a piece that repeats
GRAM = 4  # words


@dataclass(frozen=True)
class Text:
    """One free generation. content, reasoning: as the server split them. tokens: ids, where they
    are known; special: ids of them that show as no text. entropy: mean over tokens of what the
    listed alternatives leave open, nats; None where unknown."""

    name: str
    content: str | None
    reasoning: str | None
    finish: str
    tokens: tuple[int, ...] = ()
    count: int = 0
    entropy: float | None = None

    @property
    def all(self) -> str:
        return f"{self.reasoning or ''} {self.content or ''}".strip()


@cache
def limits() -> dict[str, float]:
    """degenerate.toml."""
    return dict(tomllib.loads(DATA.read_text(encoding="utf-8"))["limits"])


def findings(text: Text, *, expect_content: bool = True) -> dict[str, str]:
    """What is wrong with one text, by kind: "empty", "only-special", "repetition", "loop",
    "collapse", "only-reasoning". expect_content: whether it had room for more than reasoning."""
    limit, found = limits(), {}
    if text.count and not text.all:
        found["only-special" if text.count > 1 else "empty"] = f"{text.count} tokens, no text"
    elif not (text.content or "").strip():
        if (text.reasoning or "").strip():
            if expect_content:
                found["only-reasoning"] = f"no content, {text.finish}"
        else:
            found["empty"] = f"no text, {text.finish}"
    if len(text.all.split()) >= limit["least_words"]:
        if (share := repeated_share(text.all)) > limit["repeated_share"]:
            found["repetition"] = f"one 4-gram makes up {share:.0%}"
        if (tail := looped_tail(text.all)) > limit["looped_tail"]:
            found["loop"] = f"the last {tail:.0%} are one piece over and over"
    if len(text.tokens) >= limit["least_tokens"]:
        share = len(set(text.tokens)) / len(text.tokens)
        if share < limit["different_share"]:
            found["collapse"] = f"{share:.1%} of the tokens are different"
        elif text.entropy is not None and text.entropy < limit["entropy"]:
            found["collapse"] = f"entropy {text.entropy:.2g} nats"
    return found


def repeated_share(text: str) -> float:
    """Share of the word 4-grams that the commonest makes up."""
    words = text.split()
    grams = Counter(zip(*(words[i:] for i in range(GRAM)), strict=False))
    total = sum(grams.values())
    return max(grams.values()) / total if total else 0.0


def looped_tail(text: str) -> float:
    """Share of the text that its end, some piece of up to LONGEST characters, fills by repeating
    at least three times."""
    squeezed = re.sub(r"\s+", " ", text)
    best = 0
    for size in range(1, min(LONGEST, len(squeezed) // 3) + 1):
        piece, end, times = squeezed[-size:], len(squeezed), 0
        while end >= size and squeezed[end - size : end] == piece:
            end, times = end - size, times + 1
        if times >= 3:
            best = max(best, times * size)
    return best / len(squeezed) if squeezed else 0.0
