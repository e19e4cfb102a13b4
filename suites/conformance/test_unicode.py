"""Every script goes in and comes out whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.answers import read_answer
from acceptance.conformance.said import said, said_in
from acceptance.conformance.sse import at_every_byte
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import beyond_simulation, specified
from suites.conformance.test_usage import tokenized

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

LOST = "\ufffd"
TEXTS = {
    "emoji": "A wave 🌊 and a family 👩‍👩‍👧.",
    "Chinese": "海洋很深。",
    "Japanese": "海は深いです。",
    "Arabic": "البحر عميق.",
    "Hebrew": "הים עמוק.",
    "Devanagari": "समुद्र गहरा है।",
    "combining": "cafe\u0301 and a\u0308",
    "line separator": "one\u2028two\u2029three",
    "astral": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈",
    "control": "tab\tand\nline",
}
TOGETHER = Requests()
ECHOED = {
    name: TOGETHER.whole("completion", prompt=text, echo=True, max_tokens=1, ignore_eos=True)
    for name, text in TEXTS.items()
}
ECHOED_IN_STREAM = {
    name: TOGETHER.stream("completion", prompt=text, echo=True, max_tokens=1, ignore_eos=True)
    for name, text in TEXTS.items()
}


@check(77)
@pytest.mark.parametrize("name", TEXTS)
def test_text_survives(
    deployment: Deployment, answers: Answers, record_check: RecordCheck, name: str
) -> None:
    """A text is echoed as it was sent, by an answer and by a stream read one byte at a time, and
    its tokens make it up again.

    Does not prove that a model writes the script. Would have caught U+FFFD in the place of
    characters that lie in two tokens, and lines of an event cut at U+2028.
    """
    beyond_simulation(deployment)
    text, problems = TEXTS[name], []
    whole = said(answers.whole(ECHOED[name])).content
    streamed = said_in(at_every_byte(answers.streamed(ECHOED_IN_STREAM[name]))).content
    for how, told in (("answer", whole), ("stream", streamed)):
        if not told.startswith(text):
            problems.append(f"the {how} says {told!r}")
        elif LOST in told[: len(text)]:
            problems.append(f"the {how} lost a character: {told!r}")
    ids = tokenized(answers, {"model": answers.model, "prompt": text, "add_special_tokens": False})
    asked = {"model": answers.model, "tokens": ids}
    again = read_answer(answers.client.post("/detokenize", json=asked))["prompt"]
    if again != text:
        problems.append(f"tokens make {again!r} of {text!r}")
    specified(record_check, problems)
