"""The rehearsal model's tokenizer: bytes, DeepSeek's special tokens, and a token for each word.

A byte-level BPE without merges: what is a word of the vocabulary is one token, all else falls
apart into bytes, so that any text comes back as it was, and a code or a nonce has a token for
each character.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from acceptance.rehearsal import words

VOCABULARY = 768
TEMPLATE = Path(__file__).parent / "chat_template.jinja"
SPECIAL = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")
# As in DeepSeek-R1 these are no special tokens to a detokenizer: parsers find them in the text.
MARKS = (
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
)
WORD = r" ?[A-Z]?[a-z]+"
PHRASES = (
    "What is the code of a an Answer with number only Repeat this text exactly and write nothing "
    "else Say Call tool The I repeat say call tell about Tell me story Write long You are helpful "
    "assistant Be brief please Tools can type object properties string required function json "
    "description parameters Now it said that was JSON as answer result not do know yes no"
)
COMMON = (
    "you your me is are in on at of the a an it "
    "to for he she they we his her their our be has had have will would could one two three four "
    "five six seven eight nine ten first last then when where who how why there here more most "
    "some any all every each other than so but or if from by out up down over under into through "
    "again man woman child house water fire day night year hand eye world work life way line end "
    "place name side part great good little long own right high same such much many even must make "
    "made take come go see use find give think take before after between never always License Work "
    "copyright terms conditions rights means including shall may without patent notice use"
)


def vocabulary() -> dict[str, int]:
    """Token (byte-level letters) to id. Words stand with a space before them, and those that
    may begin a line also without."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [f"{verb}_{topic}" for verb in words.VERBS for topic in words.TOPICS]
    bare = [*words.THINGS, *words.CITIES, *words.KEYS, *re.split("[ _]", " ".join(names))]
    capital = [verb.capitalize() for verb in words.VERBS]
    spaced = chain(
        PHRASES.split(),
        words.THINGS,
        words.PEOPLE,
        words.DEEDS,
        words.LOOKS,
        " ".join(words.TIMES).split(),
        words.CITIES,
        words.TOPICS,
        words.KEYS,
        capital,
        COMMON.split(),
    )
    first = [*PHRASES.split(), *capital]
    wanted = chain(letters, bare, first, (f"Ġ{word}" for word in spaced if word != "json"))
    found = list(dict.fromkeys(word for word in wanted if len(word) > 1 or word in letters))
    room = VOCABULARY - len(SPECIAL) - len(MARKS)
    return {token: index + len(SPECIAL) for index, token in enumerate(found[:room])}


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, without merges and with the chat template."""
    tokens = vocabulary()
    vocab = {token: index for index, token in enumerate(SPECIAL)} | tokens
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf"{WORD}|[\s\S]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    backend.add_tokens([AddedToken(token, normalized=False) for token in MARKS])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[2],
        clean_up_tokenization_spaces=False,
        model_max_length=131072,
    )
    fast.chat_template = TEMPLATE.read_text()
    return fast
