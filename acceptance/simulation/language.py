"""The simulated model: a tokenizer of one token a character, and a hash in place of a network.

What follows depends on all tokens before it and on nothing else, so greedy text repeats, a prompt
scored twice scores alike, and a prompt extended by its own continuation goes on the same way.
"""

from __future__ import annotations

import math
import re
import zlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SPECIAL = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<unk>",
)
BOS, EOS, USER, ASSISTANT, UNKNOWN = 0, 1, 3, 4, 5
PRINTABLE = "".join(map(chr, range(32, 127)))
FIRST = len(SPECIAL)  # id of the first printable character
VOCABULARY = {
    **{text: number for number, text in enumerate(SPECIAL)},
    **{character: FIRST + number for number, character in enumerate(PRINTABLE)},
}
COUNT = len(PRINTABLE)
STRIDES = tuple(n for n in range(1, COUNT) if math.gcd(n, COUNT) == 1)
FLOOR = -60.0  # nats: a token that the model never says
ENDS_FROM = 48  # tokens, after which an answer may end by itself
ENDS_ONE_IN = 64
_WORDS = re.compile("|".join([*map(re.escape, SPECIAL), r"[\s\S]"]))


def encode(text: str) -> list[int]:
    """One token a character; those outside printable ASCII are unknown, names of special tokens
    are those tokens."""
    if "<" not in text:
        return [VOCABULARY.get(character, UNKNOWN) for character in text]
    return [VOCABULARY.get(word, UNKNOWN) for word in _WORDS.findall(text)]


def piece(token: int) -> str:
    """The text of one token; nothing for special ones and for ids without a character."""
    return PRINTABLE[token - FIRST] if FIRST <= token < FIRST + COUNT else ""


def name(token: int) -> str:
    """The text of any token, special ones by their names."""
    return SPECIAL[token] if token < FIRST else piece(token)


def decode(tokens: Sequence[int]) -> str:
    return "".join(map(piece, tokens))


def digest(tokens: Sequence[int], state: int = 0) -> int:
    """The model's state after these tokens."""
    return zlib.crc32(array("I", tokens).tobytes(), state)


@dataclass(frozen=True)
class Distribution:
    """What may follow a state: characters ranked by an arithmetic walk through the alphabet, with
    probabilities falling by the factor `ratio` from one to the next."""

    state: int

    @property
    def ratio(self) -> float:
        return 0.3 + 0.4 * ((self.state >> 8) & 0xFF) / 255

    @property
    def stride(self) -> int:
        return STRIDES[(self.state >> 16) % len(STRIDES)]

    def token(self, rank: int) -> int:
        """Id of the token of this rank, from 0 for the likeliest."""
        return FIRST + (self.state + rank * self.stride) % COUNT

    def rank(self, token: int) -> int | None:
        """Rank of a token; None for one that is never said."""
        if not FIRST <= token < FIRST + COUNT:
            return None
        return (token - FIRST - self.state) * pow(self.stride, -1, COUNT) % COUNT

    def logprob(self, token: int) -> float:
        """Natural logarithm of its probability."""
        rank = self.rank(token)
        if rank is None:
            return FLOOR
        return math.log1p(-self.ratio) + rank * math.log(self.ratio)

    def top(self, count: int) -> list[tuple[int, float]]:
        """The likeliest tokens with their log-probabilities."""
        tokens = [self.token(rank) for rank in range(count)]
        return [(token, self.logprob(token)) for token in tokens]

    def draw(self, chance: float, temperature: float) -> int:
        """The token that a number from [0, 1) picks at this temperature."""
        ratio = self.ratio ** (1 / temperature)
        rank = int(math.log1p(-chance) / math.log(ratio)) if ratio > 0 else 0
        return self.token(min(rank, COUNT - 1))


@dataclass
class Generated:
    """One choice. states: the model's state before each token. shown: the text that is told, cut at
    a stop string."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    shown: str = ""
    finish_reason: str = "length"
    stop_reason: str | int | None = None


@dataclass(frozen=True)
class Wish:
    """How to continue. salt: what sampling depends on besides the text; None is greedy."""

    tokens: int
    least: int = 0
    temperature: float = 0.0
    salt: str | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    keep_stop: bool = False
    ignore_eos: bool = False
    disturbance: int = 0


def generate(prompt: list[int], wish: Wish) -> Generated:
    """Continues a prompt, at once and whole: when its tokens come is the engine's matter."""
    made, state = Generated(prompt), digest(prompt, wish.disturbance)
    text = ""
    for number in range(wish.tokens):
        made.states.append(state)
        token = _next(state, number, wish)
        made.tokens.append(token)
        if token == EOS:
            made.finish_reason = "stop"
            break
        state, text = digest([token], state), text + piece(token)
        if number + 1 >= wish.least and (hit := _stopped(text, token, wish)) is not None:
            made.finish_reason, made.stop_reason = "stop", hit
            if isinstance(hit, str):
                text = text[: text.index(hit) + (len(hit) if wish.keep_stop else 0)]
            break
    made.shown = text
    return made


def _next(state: int, number: int, wish: Wish) -> int:
    may_end = not wish.ignore_eos and number >= max(ENDS_FROM, wish.least)
    if may_end and state % ENDS_ONE_IN == 0:
        return EOS
    distribution = Distribution(state)
    if wish.salt is None:
        token = distribution.token(0)
    else:
        chance = zlib.crc32(f"{wish.salt} {number} {state}".encode()) / 2**32
        token = distribution.draw(chance, wish.temperature)
    if number < wish.least and token in wish.stop_ids:  # held off, as vLLM does
        rank = distribution.rank(token)
        return token if rank is None else distribution.token((rank + 1) % COUNT)
    return token


def _stopped(text: str, token: int, wish: Wish) -> str | int | None:
    if token in wish.stop_ids:
        return token
    return next((stop for stop in wish.stop if stop in text), None)
