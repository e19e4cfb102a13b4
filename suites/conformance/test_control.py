"""What steers the choice of tokens: forced, forbidden, and the model's own defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.conformance.answers import read_answer
from acceptance.conformance.bodies import CHAT, COMPLETIONS, chat, completion
from acceptance.conformance.said import Said, said
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import beyond_simulation, specified
from suites.conformance.test_usage import tokenized

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

LENGTH = 6  # tokens
CHAT_LENGTH = 16  # tokens, of which the first may be marks
MOST = 100  # the largest logit_bias
DEEPSEEK_R1 = {"temperature": 0.6, "top_p": 0.95}  # its generation_config.json
VLLM = {"temperature": 1.0, "top_p": 1.0}  # what vLLM takes where a model says nothing
SEEDS = (11, 12, 13)

TOGETHER = Requests()
FIXED: dict[str, Any] = {"ignore_eos": True, "return_token_ids": True}
FREE = TOGETHER.whole("completion", max_tokens=LENGTH, **FIXED)
FREE_CHAT = TOGETHER.whole("chat", max_tokens=CHAT_LENGTH, **FIXED)


@dataclass(frozen=True)
class Steered:
    """What a list forces or forbids of a greedy answer. wanted, unwanted: token ids."""

    wanted: int
    unwanted: int
    forced: Said
    forbidden: Said
    allowed: Said


@check(28)
def test_logit_bias_forces(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A logit_bias of 100 makes every token the wanted one.

    Does not prove small biases. Would have caught a bias that is taken for text completions and
    lost on the way to the engine.
    """
    beyond_simulation(deployment)
    found = answers.once(_steered)
    specified(record_check, _only(found.forced, {found.wanted}))


@check(28)
def test_logit_bias_forbids(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A logit_bias of -100 keeps out the token that greedy decoding would have chosen first.

    Does not prove it of a token that another one spells. Would have caught a sign lost on the way.
    """
    beyond_simulation(deployment)
    found = answers.once(_steered)
    specified(record_check, _none(found.forbidden, found.unwanted))


@check(28)
def test_allowed_token_ids(
    deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """With allowed_token_ids nothing else is generated.

    Does not prove it together with a grammar. Would have caught a classifier over two tokens that
    answered with a third.
    """
    beyond_simulation(deployment)
    found = answers.once(_steered)
    specified(record_check, _only(found.allowed, {found.wanted}))


@check(28)
def test_bad_words(deployment: Deployment, answers: Answers, record_check: RecordCheck) -> None:
    """A word of bad_words, which greedy decoding would have said, is not said in a chat.

    Does not prove it of other spellings, nor of text completions, which know no bad_words before
    vllm#46793. Would have caught a filter that was accepted and had no
    effect.
    """
    beyond_simulation(deployment)
    free = said(answers.whole(FREE_CHAT))
    found = _word(answers, free.tokens)
    if found is None:
        not_applicable(f"no token of {free.text!r} is a word to forbid")
    unwanted, word = found
    body = chat(answers.model, max_tokens=CHAT_LENGTH, **FIXED, bad_words=[word])
    without = said(read_answer(answers.client.post(CHAT, json=body)))
    specified(record_check, _none(without, unwanted))


@check(34)
def test_sampling_defaults(
    server: Server, deployment: Deployment, answers: Answers, record_check: RecordCheck
) -> None:
    """A request without temperature and top_p is sampled as the model's generation_config.json
    says (R1: 0.6 and 0.95), told by seeds: the same text as with those numbers in the request.

    Does not prove that these are good for a task. Would have caught --generation-config vllm, with
    which R1 is sampled at 1.0 and loops or rambles.
    """
    beyond_simulation(deployment)
    intended = _intended(server)
    plain, explicit, hot = (_sampled(answers, changes) for changes in ({}, intended, VLLM))
    problems = []
    if plain != explicit:
        problems.append(f"without parameters {plain}, with {intended} {explicit}")
    if plain == hot != explicit:
        problems.append(f"as with {VLLM}")
    record_check(expected=explicit, actual=plain, intended=intended, seeds=SEEDS)
    assert not problems, "; ".join(problems)


def _only(one: Said, allowed: set[int]) -> list[str]:
    others = sorted(set(one.tokens) - allowed)
    problems = [f"tokens {others} besides {sorted(allowed)}"] if others else []
    return problems if one.tokens else ["no token ids"]


def _none(one: Said, forbidden: int) -> list[str]:
    if not one.tokens:
        return ["no token ids"]
    return [f"token {forbidden} in {one.tokens}"] if forbidden in one.tokens else []


def _steered(answers: Answers) -> Steered:
    unwanted = said(answers.whole(FREE)).tokens[0]
    wanted = tokenized(answers, {"model": answers.model, "prompt": " sea"})[-1]
    if wanted == unwanted:
        wanted = tokenized(answers, {"model": answers.model, "prompt": " land"})[-1]
    bodies: list[dict[str, Any]] = [
        {"logit_bias": {str(wanted): MOST}},
        {"logit_bias": {str(unwanted): -MOST}},
        {"allowed_token_ids": [wanted]},
    ]
    fixed = {"max_tokens": LENGTH, **FIXED}
    posts = [(COMPLETIONS, completion(answers.model, **fixed, **changes)) for changes in bodies]
    return Steered(wanted, unwanted, *(said(read_answer(it)) for it in answers.now(posts)))


def _word(answers: Answers, tokens: tuple[int, ...]) -> tuple[int, str] | None:
    """The first token that is a word of its own, with its text; None where none is. Marks and
    spaces cannot be forbidden as words; and a word with a space before it only where the word alone
    is as many tokens (vLLM 0.25.1 to 0.32, update_from_tokenizer)."""
    for token in tokens:
        named = {"model": answers.model, "tokens": [token]}
        text = read_answer(answers.client.post("/detokenize", json=named))["prompt"]
        word = text.strip()
        if word.isalpha() and len(_alone(answers, text)) == len(_alone(answers, word)) == 1:
            return token, word
    return None


def _alone(answers: Answers, text: str) -> list[int]:
    asked = {"model": answers.model, "prompt": text, "add_special_tokens": False}
    return tokenized(answers, asked)


def _intended(server: Server) -> dict[str, float]:
    """From the file beside the weights; R1's own where they are R1's."""
    file = Path(server.model_path) / "generation_config.json"
    if file.is_file():
        told = json.loads(file.read_text(encoding="utf-8"))
        return {name: told.get(name, usual) for name, usual in VLLM.items()}
    if "deepseek-r1" not in server.deployment.model.lower():
        not_applicable(f"what {server.deployment.model} intends is in a file out of reach")
    return DEEPSEEK_R1


def _sampled(answers: Answers, changes: dict[str, float]) -> list[str]:
    """What every seed says."""
    texts = []
    for seed in SEEDS:
        fixed: dict[str, Any] = {"max_tokens": LENGTH, "ignore_eos": True, "seed": seed}
        steered: dict[str, Any] = {"temperature": None, "top_p": None, **changes}
        asked = completion(answers.model, **fixed, **steered)
        texts.append(said(read_answer(answers.client.post(COMPLETIONS, json=asked))).text)
    return texts
