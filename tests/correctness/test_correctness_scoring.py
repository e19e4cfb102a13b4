"""Asking a server for log-probabilities, and a reference for its own, where either goes wrong."""

from __future__ import annotations

import json
import math
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from stub_model import Stub, lost, rows, tokenize

from acceptance.correctness import reference
from acceptance.correctness.reference import reference_scores
from acceptance.correctness.scoring import TOP, greedy, score
from acceptance.correctness.scoring import tokenize as ask_tokens
from acceptance.correctness.texts import corpus, digest, joined, texts
from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = "generated/deepseek-v3-tiny"
PROMPTS = {name: tokenize(name) for name in ("harbour", "ledger")}


def choice(change: Callable[[dict[str, Any]], Any]) -> Stub:
    """A server whose answers' first choice is changed."""

    def edit(said: dict[str, Any]) -> dict[str, Any]:
        if "choices" in said:
            change(said["choices"][0])
        return said

    return Stub(edit=edit)


def test_the_texts_are_many_scripts_and_long_enough() -> None:
    found = corpus(48)
    assert list(texts().items()) == list(found.items())[: len(texts())]
    assert len(found) == len(set(found.values())) == 48
    assert digest(found) == digest(corpus(48)) != digest(corpus(47))
    assert joined(24, seed=1) == joined(24, seed=1) != joined(24, seed=2)
    found = dict(texts())
    assert len(found) >= 10
    assert all(len(tokenize(text)) > 30 for text in found.values())
    assert any(ord(char) > 0x4E00 for text in found.values() for char in text)


def test_every_position_is_scored_as_the_model_says() -> None:
    for scored in score(Stub().client(), MODEL, PROMPTS):
        tokens = PROMPTS[scored.name]
        assert scored.tokens == tuple(tokens)
        for place, row in enumerate(rows(tokens)):
            assert scored.logprobs[place] == row[tokens[place + 1]]
            assert scored.best[place] == max(row, key=lambda token: row[token])
            assert TOP <= len(scored.tops[place]) <= TOP + 1
            assert scored.tops[place].items() <= row.items()


def test_a_value_that_is_no_number_stays_none_of_them() -> None:
    scored = score(Stub(wrong=lost).client(), MODEL, PROMPTS)
    assert all(math.isnan(one.logprobs[4]) for one in scored)


@pytest.mark.parametrize(
    "stub",
    [
        choice(lambda c: c["prompt_logprobs"].pop()),
        choice(lambda c: c["prompt_logprobs"].append(None)),
        choice(lambda c: c["prompt_logprobs"].__setitem__(3, None)),
        choice(lambda c: c["prompt_logprobs"].__setitem__(3, {"511": {"logprob": -1, "rank": 1}})),
        choice(lambda c: [e.pop("rank") for r in c["prompt_logprobs"][1:] for e in r.values()]),
        choice(lambda c: [e.update(logprob=None) for e in c["prompt_logprobs"][2].values()]),
        choice(lambda c: c.clear()),
        choice(lambda c: c.update(prompt_logprobs=None)),
        Stub(edit=lambda said: {"choices": []}),
        Stub(edit=lambda said: {"choices": said["choices"] * 2}),
        Stub(edit=lambda said: {}),
        Stub(edit=lambda said: ["no", "object", 1]),
        Stub(status=500),
        Stub(status=404),
    ],
    ids=lambda _: "",
)
def test_a_missing_value_is_never_a_score(stub: Stub) -> None:
    with pytest.raises(ObservationError):
        score(stub.client(), MODEL, PROMPTS)


def test_the_refusal_says_what_was_answered() -> None:
    with pytest.raises(ObservationError, match=r"/v1/completions answered 500: .*EngineDeadError"):
        score(Stub(status=500).client(), MODEL, PROMPTS)
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>sign in</html>"))
    with (
        httpx.Client(transport=page, base_url="http://server.test") as client,
        pytest.raises(ObservationError, match="sign in"),
    ):
        score(client, MODEL, PROMPTS)


def test_one_failure_does_not_wait_for_requests_that_hang() -> None:
    over, waited = threading.Event(), threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["prompt"] != PROMPTS["harbour"]:
            over.wait(30)
            waited.set()
        return httpx.Response(500, text="EngineDeadError")

    transport = httpx.MockTransport(answer)
    client = httpx.Client(transport=transport, base_url="http://server.test")
    try:
        with pytest.raises(ObservationError):
            score(client, MODEL, PROMPTS)
        assert not waited.is_set()
    finally:
        over.set()


def test_greedy_tokens_come_with_their_gaps() -> None:
    for one in greedy(Stub().client(), MODEL, PROMPTS, 8):
        assert len(one.tokens) == len(one.gaps) == len(one.logprobs) == 8
        assert one.prompt == tuple(PROMPTS[one.name])
        for at, row in enumerate(rows([*one.prompt, *one.tokens])[-8:]):
            best, second = sorted(row.values(), reverse=True)[:2]
            assert one.logprobs[at] == best
            assert one.gaps[at] == pytest.approx(best - second)


def top(change: Callable[[list[Any]], Any]) -> Stub:
    return choice(lambda c: change(c["logprobs"]["top_logprobs"]))


@pytest.mark.parametrize(
    "stub",
    [
        choice(lambda c: c["logprobs"]["tokens"].pop()),
        choice(lambda c: c["logprobs"].update(tokens=None)),
        choice(lambda c: c.update(logprobs=None)),
        choice(lambda c: c["logprobs"]["token_logprobs"].pop()),
        choice(lambda c: c["logprobs"]["token_logprobs"].__setitem__(2, None)),
        choice(lambda c: c["logprobs"]["tokens"].__setitem__(2, "sea")),
        top(lambda tops: tops.pop()),
        top(lambda tops: tops.__setitem__(2, None)),
        top(lambda tops: tops.__setitem__(2, {})),
        top(lambda tops: tops[2].popitem()),
        top(lambda tops: tops[2].update(x=math.nan)),
        top(lambda tops: tops[2].update(dict.fromkeys(tops[2], None))),
        Stub(edit=lambda said: {"choices": []}),
        Stub(status=400),
    ],
    ids=lambda _: "",
)
def test_a_missing_gap_is_never_a_tie(stub: Stub) -> None:
    """One alternative alone would read as a gap of nothing, which excuses every difference."""
    with pytest.raises(ObservationError):
        greedy(stub.client(), MODEL, PROMPTS, 8)


@pytest.mark.parametrize(
    "said", [{}, {"tokens": []}, {"tokens": [0]}, {"tokens": None}, {"tokens": "12"}]
)
def test_a_text_without_tokens_is_no_text(said: dict[str, Any]) -> None:
    assert ask_tokens(Stub().client(), MODEL, "sea") == tokenize("sea")
    with pytest.raises(ObservationError):
        ask_tokens(Stub(edit=lambda _: said).client(), MODEL, "sea")


FAKE = """
import json, pathlib, sys, time
_, checkpoint, given, out, top = sys.argv
asked = json.loads(pathlib.Path(given).read_text())
{act}
"""
HONEST = """
said = {name: {"logprobs": [-1.0] * (len(t) - 1), "best": [5] * (len(t) - 1),
               "tops": [{5: -0.5}] * (len(t) - 1)} for name, t in asked.items()}
pathlib.Path(out).write_text(json.dumps({"float32": said, "bfloat16": said}))
"""


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """reference_scores() with a module of ours in the place of transformers."""

    def ask(act: str, *, timeout: float = 60, python: str = sys.executable) -> Any:
        (tmp_path / "fake_reference.py").write_text(FAKE.format(act=act))
        monkeypatch.setattr(reference, "MODULE", "fake_reference")
        monkeypatch.setattr(reference, "ROOT", tmp_path)
        folder = tmp_path / "evidence"
        return reference_scores("checkpoint", PROMPTS, folder, python=python, timeout=timeout)

    return ask


def test_a_reference_answers_for_every_text(asking: Any, tmp_path: Path) -> None:
    found = asking(HONEST)
    for account in (found.exact, found.rounded):
        assert [one.name for one in account] == list(PROMPTS)
        assert all(len(one.logprobs) == len(PROMPTS[one.name]) - 1 for one in account)
        assert account[0].tops[0] == {5: -0.5}
    kept = sorted(file.name.partition("-")[0] for file in (tmp_path / "evidence").glob("*.json"))
    assert kept == ["asked", "reference"]


def test_the_same_is_computed_once(asking: Any) -> None:
    """Every layout of a checkpoint asks the same; torch takes seconds to import."""
    assert asking(HONEST) == asking("sys.exit(1)")


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "No module named 'torch'"),
        ("sys.exit(3)", "exit code 3"),
        ("pass", "exit code 0"),
        ("pathlib.Path(out).write_text('{')", "JSONDecodeError"),
        ("pathlib.Path(out).write_text('{}')", "KeyError"),
        ("pathlib.Path(out).write_text('[]')", "TypeError"),
    ],
)
def test_a_reference_that_fails_is_no_reference(asking: Any, act: str, told: str) -> None:
    with pytest.raises(ObservationError) as refused:
        asking(act)
    assert told in refused.value.cause


def test_a_reference_that_takes_too_long(asking: Any) -> None:
    with pytest.raises(ObservationError, match="did not score the texts within 0 s"):
        asking("time.sleep(60)", timeout=0.2)


def test_an_interpreter_that_is_not_there(asking: Any) -> None:
    with pytest.raises(ObservationError, match="could not be asked"):
        asking(HONEST, python="/nowhere/python")
