"""Which token is taken for a word that vLLM can be told not to say."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from suites.conformance.test_control import _word

if TYPE_CHECKING:
    from suites.conformance.asking import Answers

TEXTS = {1: " white", 2: " sail", 3: "sail", 4: ",", 5: "wh", 6: "ite"}
PIECES = {" white": [1], "white": [5, 6], " sail": [2], "sail": [3], ",": [4]}


def _answer(request: httpx.Request) -> httpx.Response:
    asked = json.loads(request.content)
    if request.url.path == "/detokenize":
        return httpx.Response(200, json={"prompt": "".join(TEXTS[t] for t in asked["tokens"])})
    tokens = PIECES[asked["prompt"]]
    return httpx.Response(200, json={"tokens": tokens, "count": len(tokens)})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # Forbidden "white" is two tokens, and vLLM takes " white" in only if it is as many.
        pytest.param((4, 1, 2), (2, "sail"), id="a word that is a token only with its space"),
        pytest.param((3, 2), (3, "sail"), id="a word without a space"),
        pytest.param((4, 1), None, id="nothing that can be forbidden"),
    ],
)
def test_the_word_is_one_that_vllm_forbids(
    said: tuple[int, ...], expected: tuple[int, str] | None
) -> None:
    transport = httpx.MockTransport(_answer)
    with httpx.Client(transport=transport, base_url="http://server.test") as client:
        answers = cast("Answers", SimpleNamespace(model="tiny", client=client))
        assert _word(answers, said) == expected
