"""The words of tasks and filler text. The rehearsal's tokenizer has a token for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THINGS = _words(
    "river stone boat lamp bridge garden mill clock letter window road forest hill field tower "
    "market church horse dog bird fish wagon barrel rope sail anchor candle mirror table chair "
    "door key coat hat book map coin bell drum flute basket bottle cup plate knife ladder wheel "
    "fence gate well roof wall path island valley lake meadow barn oven harbour"
)
PEOPLE = _words(
    "miller baker farmer sailor teacher clerk widow captain painter doctor singer hunter tailor "
    "mason shepherd gardener"
)
DEEDS = _words(
    "carried found moved watched painted counted sold bought opened closed lifted repaired cleaned "
    "followed left lost kept showed hid brought"
)
LOOKS = _words(
    "old new small large heavy light quiet bright dark cold warm green blue red white grey broken "
    "empty full narrow"
)
TIMES = (
    "at dawn",
    "at noon",
    "in the evening",
    "before the rain",
    "after the storm",
    "in spring",
    "without a word",
    "all day",
    "last winter",
    "near the sea",
)
CITIES = _words(
    "Paris Rome Berlin Madrid Vienna Lisbon Oslo Prague Dublin Athens Cairo Lima Quito Delhi Tokyo "
    "Seoul Hanoi Sydney Boston Dallas Denver Geneva Milan Naples Porto Riga Sofia Turin Warsaw "
    "Zurich"
)
VERBS = _words("get find check show read")
TOPICS = _words("weather time price distance population news size age height traffic")
KEYS = _words("city place name town")

DIGITS = "0123456789"
# Upper case and digits, which no two tokenizers of note run together into words; without the
# ones that are easily taken for each other.
NONCE = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def nonce(rng: random.Random, length: int = 6) -> str:
    """Characters of NONCE, none of them twice."""
    return "".join(rng.sample(NONCE, length))


def sentence(rng: random.Random) -> str:
    """Filler: plain English of 9 to 12 words that says nothing of codes or numbers."""
    choose = rng.choice
    return (
        f"The {choose(LOOKS)} {choose(PEOPLE)} {choose(DEEDS)} the {choose(LOOKS)} "
        f"{choose(THINGS)} {choose(TIMES)}."
    )
