"""The model that is a hash: consistent as a model must be."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.gpus.kv import kv_shape
from acceptance.simulation.checkpoint import ensure_tokenizer
from acceptance.simulation.language import (
    COUNT,
    EOS,
    SPECIAL,
    UNKNOWN,
    Distribution,
    Wish,
    decode,
    digest,
    encode,
    generate,
)

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = encode("Once upon a time")
STATES = st.integers(0, 2**32 - 1)


def test_greedy_text_continues_itself() -> None:
    whole = generate(PROMPT, Wish(20, ignore_eos=True))
    rest = generate(PROMPT + whole.tokens[:8], Wish(12, ignore_eos=True))
    assert whole.tokens[8:] == rest.tokens
    assert whole.finish_reason == "length"
    assert decode(whole.tokens) == whole.shown


@given(STATES)
def test_probabilities_are_a_distribution(state: int) -> None:
    distribution = Distribution(state)
    top = distribution.top(COUNT)
    assert len({token for token, _ in top}) == COUNT
    values = [value for _, value in top]
    assert values == sorted(values, reverse=True)
    assert sum(map(math.exp, values)) <= 1 + 1e-9
    for rank, (token, value) in enumerate(top):
        assert distribution.rank(token) == rank
        assert distribution.logprob(token) == value


@given(STATES, st.floats(0, 1, exclude_max=True), st.floats(0.01, 2))
def test_every_draw_is_a_token(state: int, chance: float, temperature: float) -> None:
    assert Distribution(state).rank(Distribution(state).draw(chance, temperature)) is not None


def test_seeds_repeat_and_differ() -> None:
    def said(salt: str) -> list[int]:
        return generate(PROMPT, Wish(16, temperature=1, salt=salt)).tokens

    assert said("7 0") == said("7 0")
    assert len({tuple(said(f"{seed} 0")) for seed in range(4)}) == 4


def test_stop_strings_cut_and_are_kept_when_asked() -> None:
    whole = generate(PROMPT, Wish(32, ignore_eos=True)).shown
    piece = whole[10:13]
    cut = generate(PROMPT, Wish(32, ignore_eos=True, stop=(piece,)))
    kept = generate(PROMPT, Wish(32, ignore_eos=True, stop=(piece,), keep_stop=True))
    assert cut.shown == whole[: whole.index(piece)]
    assert kept.shown == cut.shown + piece
    assert (cut.finish_reason, cut.stop_reason) == ("stop", piece)


def test_answers_end_by_themselves_unless_told_not_to() -> None:
    made = generate(PROMPT, Wish(5000))
    assert made.tokens[-1] == EOS
    assert made.finish_reason == "stop"
    assert len(generate(PROMPT, Wish(5000, ignore_eos=True)).tokens) == 5000


def test_the_state_is_that_of_all_tokens() -> None:
    assert digest(PROMPT[5:], digest(PROMPT[:5])) == digest(PROMPT)


@given(st.text(max_size=60))
def test_printable_text_survives_the_tokenizer(text: str) -> None:
    tokens = encode(text)
    assert len(tokens) == len(text)
    plain = "".join(c for c in text if c.isascii() and c.isprintable())
    assert decode(tokens) == plain


def test_special_tokens_are_one_token() -> None:
    assert encode(f"a{SPECIAL[3]}b<c") == [*encode("a"), 3, *encode("b<c")]
    assert encode("\n") == [UNKNOWN]


@pytest.mark.parametrize(("precision", "size"), [("fp8", 70272), ("fp4", 35136)])
def test_checkpoint_tells_the_kv_cache_of_the_model(
    tmp_path: Path, precision: str, size: int
) -> None:
    folder = ensure_tokenizer(precision, tmp_path)
    assert ensure_tokenizer(precision, tmp_path) == folder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert kv_shape(config).bytes_per_token == size


def test_tokenizer_file_agrees_with_the_servers(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = ensure_tokenizer("fp8", tmp_path)
    loaded = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("Hello, you  there!", "a\nb é <｜User｜>x", "~{}|"):
        assert loaded.encode(text).ids == encode(text)


@pytest.mark.parametrize("salt", [None, "7 0"])
def test_a_stop_token_is_held_off_below_the_floor(salt: str | None) -> None:
    free = generate(PROMPT, Wish(20, temperature=1.0, salt=salt, ignore_eos=True))
    token = free.tokens[3]
    held = Wish(20, 12, 1.0, salt, stop_ids=(token,), ignore_eos=True)
    made = generate(PROMPT, held)
    assert token not in made.tokens[:12]
    assert len(made.tokens) > 12
