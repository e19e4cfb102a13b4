"""The slice's tokenizer: as many tokens as DeepSeek-R1's, made and not learned.

Dummy weights generate any token, so each of the 129,280 must have a text; random prompts of vLLM's
benchmark are decoded and encoded again, so that must give the same tokens. Hence: single bytes,
which spell any text, and made-up words that are one token each.
"""

from __future__ import annotations

from typing import Any

from acceptance.slice.config import VOCABULARY

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
SPECIAL = (BOS, EOS, PAD, "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<｜User｜>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "<｜Assistant｜>{{ message['content'] }}<｜end▁of▁sentence｜>"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
_SYLLABLES = tuple(c + v for c in "bdfghjklmnprstvz" for v in "aeiou")
_SPACE = "Ġ"  # how byte-level BPE writes a space


def byte_alphabet() -> list[str]:
    """One printable character for each byte 0 to 255, as byte-level BPE (GPT-2) has them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def word(number: int) -> str:
    """A made-up word of three syllables, another for each number below 512,000."""
    first, rest = divmod(number, len(_SYLLABLES) ** 2)
    second, third = divmod(rest, len(_SYLLABLES))
    return _SYLLABLES[first] + _SYLLABLES[second] + _SYLLABLES[third]


def vocabulary() -> dict[str, int]:
    """Every token and its id: special ones, bytes, then words with a space before them."""
    known = [*SPECIAL, *byte_alphabet()]
    words = (_SPACE + word(number) for number in range(VOCABULARY - len(known)))
    return {token: number for number, token in enumerate([*known, *words])}


def _special(token: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def _sequence(name: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}


def tokenizer_json() -> dict[str, Any]:
    """tokenizer.json, as the tokenizers library reads it. ignore_merges: a word that is in the
    vocabulary is taken whole; there are no merges, so all else is spelt in bytes."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": number < len(SPECIAL) - 2,  # <think> is text that clients see
            }
            for number, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",  # as DeepSeek's: one BOS before every text
            "single": [_special(BOS), _sequence("A", 0)],
            "pair": [_special(BOS), _sequence("A", 0), _sequence("B", 1)],
            "special_tokens": {BOS: {"id": BOS, "ids": [SPECIAL.index(BOS)], "tokens": [BOS]}},
        },
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocabulary(),
            "merges": [],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """tokenizer_config.json, as transformers reads it."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 163840,
        "chat_template": CHAT_TEMPLATE,
    }
