"""The rehearsal's tokenizer and template: DeepSeek-R1's conventions, and any text comes back."""

from __future__ import annotations

import random
from typing import Any

import pytest

from acceptance.rehearsal.checkpoint import WEIGHTS
from acceptance.rehearsal.tasks import KINDS, held_out, needle
from acceptance.rehearsal.words import NONCE, nonce

transformers: Any = pytest.importorskip("transformers", reason="in the rehearsal's environment")

from acceptance.rehearsal.inside.tokenizer import MARKS, SPECIAL, build  # noqa: E402 - needs it

BOS, END, USER, ASSISTANT = SPECIAL[0], SPECIAL[1], "<｜User｜>", "<｜Assistant｜>"
TEXTS = (
    "naïve café 👩‍🔬 עברית 中文 \u2028 \x00 \ufffd",
    "two  spaces\n\n\ttab, {json: [1, 2]}\r\n",
    " K7QW2M get_weather Xylophone",
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(WEIGHTS)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def test_the_shipped_one_is_what_the_code_builds(tokenizer: Any) -> None:
    built = build()
    assert built.get_vocab() == tokenizer.get_vocab()
    assert built.chat_template.strip() == tokenizer.chat_template.strip()
    assert tokenizer.encode("a") == [0, *ids_of(tokenizer, "a")]  # as R1's, which begins with BOS


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_marks_are_tokens_that_stay_in_the_text(tokenizer: Any) -> None:
    """vLLM's parsers look for them in text from which special tokens are left out."""
    for mark in MARKS:
        [only] = ids_of(tokenizer, mark)
        assert tokenizer.decode([only], skip_special_tokens=True) == mark
    for token in SPECIAL:
        [only] = ids_of(tokenizer, token)
        assert tokenizer.decode([only], skip_special_tokens=True) == ""


def test_a_nonce_has_a_token_for_each_character(tokenizer: Any) -> None:
    assert len(ids_of(tokenizer, NONCE)) == len(NONCE)
    made = nonce(random.Random(1))
    assert len(ids_of(tokenizer, f" {made}")) == 1 + len(made)


def test_filler_is_as_long_as_said(tokenizer: Any) -> None:
    """needle promises 1.1 tokens a word."""
    length = len(ids_of(tokenizer, needle(1300, 0.5, 1).prompt))
    assert 1.05 * 1300 < length < 1.15 * 1300


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_tasks_are_known(tokenizer: Any, kind: str) -> None:
    """A word that falls apart into letters would be a slip in the vocabulary."""
    for task in held_out(kind, 20):
        prompt = task.prompt
        words = [w for w in prompt.replace("\n", " ").split() if w.isalpha() and w.islower()]
        for word in words:
            assert len(ids_of(tokenizer, f" {word}")) == 1, word


def rendered(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **more))


def test_a_conversation_is_rendered_as_r1_does(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nTwo."},
        {"role": "user", "content": "Three?"},
    ]
    assert rendered(tokenizer, messages, add_generation_prompt=True) == (
        f"{BOS}Be brief.{USER}One?{ASSISTANT}Two.{END}{USER}Three?{ASSISTANT}<think>\n"
    )
    assert rendered(
        tokenizer,
        [messages[1], {"role": "assistant", "content": "Tw"}],
        continue_final_message=True,
    ).endswith(f"{USER}One?{ASSISTANT}Tw")


def test_calls_and_their_results_are_rendered_as_v3_does(tokenizer: Any) -> None:
    [task] = held_out("tool", 1)
    assert task.call is not None
    function = {"name": task.call.name, "arguments": dict(task.call.arguments)}
    calls = [{"type": "function", "function": function}] * 2
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": task.prompt},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "18"},
        {"role": "tool", "content": "19"},
    ]
    text = rendered(tokenizer, messages, tools=list(task.tools), add_generation_prompt=True)
    for tool in task.tools:
        assert tool["function"]["name"] in text.split(USER)[0]
    [(key, value)] = task.call.arguments.items()
    call = (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{task.call.name}\n```json\n"
        f'{{"{key}": "{value}"}}\n```<｜tool▁call▁end｜>'
    )
    assert f"<｜tool▁calls▁begin｜>{call}\n{call}<｜tool▁calls▁end｜>{END}" in text
    assert text.endswith(
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>18<｜tool▁output▁end｜>\n"
        "<｜tool▁output▁begin｜>19<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
        f"{ASSISTANT}<think>\n"
    )
