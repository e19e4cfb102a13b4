"""What ends a generation: its cap, a stop string or token, the end of the context; and what must
not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.conformance.answers import (
    capped_problems,
    read_answer,
    stop_piece,
    stop_problems,
    stopped_problems,
)
from acceptance.conformance.bodies import COMPLETIONS, PATHS, completion
from acceptance.conformance.refusals import QUICK, Refusal, refusal_problems
from acceptance.conformance.said import Said, said, said_in
from acceptance.conformance.sse import Stream, read_stream
from acceptance.serving.generation import generate
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import needs_training, specified
from suites.conformance.tasks import ended

if TYPE_CHECKING:
    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

LONG = 64  # tokens; more than a short answer has
STOPPED = 16  # tokens of the text that a stop string is taken from
CAPS = (1, 7)
KINDS = sorted(PATHS)

TOGETHER = Requests()
CAPPED = {
    (kind, cap): TOGETHER.whole(kind, max_tokens=cap, ignore_eos=True)
    for kind in KINDS
    for cap in CAPS
}
THROUGH = TOGETHER.whole("completion", max_tokens=LONG, ignore_eos=True)
COMPARED = Requests(alone=True)
UNSTOPPED = COMPARED.whole("completion", max_tokens=STOPPED, ignore_eos=True, return_token_ids=True)


@check(20)
@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("kind", KINDS)
def test_max_tokens(answers: Answers, record_check: RecordCheck, kind: str, cap: int) -> None:
    """max_tokens=k gives k tokens, finished by length, when nothing else ends the answer.

    Does not prove it of long answers. Would have caught answers one token short, which shift every
    throughput figure computed from the tokens asked for.
    """
    specified(record_check, capped_problems(answers.whole(CAPPED[kind, cap]), cap))


@check(27)
def test_ignore_eos_runs_to_the_cap(answers: Answers, record_check: RecordCheck) -> None:
    """ignore_eos generates through the model's own end to the cap.

    Does not prove that the model would have ended before it. Would have caught benchmarks whose
    requests ended early and so looked fast.
    """
    specified(record_check, capped_problems(answers.whole(THROUGH), LONG))


@check(22)
def test_natural_end(deployment: Deployment, answers: Answers, record_check: RecordCheck) -> None:
    """An answer that the model ends by itself says stop, with no stop_reason, before its cap.

    Does not prove that it is right. Would have caught a tokenizer whose end token is not the
    model's, so that every answer ran to its cap.
    """
    needs_training(deployment)
    problems = [
        f"{task.prompt[:60]!r}: finished by {one.finish_reason!r}, stop_reason {one.stop_reason!r}"
        for task, one in ended(answers)
        if (one.finish_reason, one.stop_reason) != ("stop", None)
    ]
    specified(record_check, problems)


@check(23)
@pytest.mark.parametrize("included", [False, True], ids=["cut", "included"])
def test_stop_string(answers: Answers, record_check: RecordCheck, included: bool) -> None:
    """A generation ends at the stop string, without it or, if asked, with it, and names it.

    Does not prove it of several strings. Would have caught agents that run on past their marker.
    """
    found = answers.once(_stopping)
    answer = read_answer(found.kept if included else found.cut)
    specified(record_check, stop_problems(answer, found.whole.text, found.piece, included=included))


@check(24)
def test_stop_string_never_leaks_into_a_stream(answers: Answers, record_check: RecordCheck) -> None:
    """A streamed generation holds back what may become the stop string: no part of it is sent.

    Does not prove it for every split of it into tokens. Would have caught a marker's first half
    shown to a user.
    """
    found = answers.once(_stopping)
    streamed = said_in(found.streamed)
    expected = found.whole.text[: found.whole.text.index(found.piece)]
    problems = []
    if streamed.text != expected:
        problems.append(f"streamed {streamed.text!r}, not {expected!r}")
    if (streamed.finish_reason, streamed.stop_reason) != ("stop", found.piece):
        problems.append(f"ended by {streamed.finish_reason!r}, {streamed.stop_reason!r}")
    specified(record_check, problems)


@check(25)
def test_stop_token(answers: Answers, record_check: RecordCheck) -> None:
    """A generation ends with the first of stop_token_ids, which stop_reason names.

    Does not prove it of the model's own end. Would have caught a second end token, as chat formats
    have, that did not end anything.
    """
    found = answers.once(_stopping)
    one = said(read_answer(found.by_token))
    specified(record_check, stopped_problems(one, found.whole, found.token))


@check(26)
def test_min_tokens(answers: Answers, record_check: RecordCheck) -> None:
    """min_tokens=k holds a stop token off: at least k tokens are generated.

    Does not prove it of stop strings, which vLLM holds off as well. Would have caught a floor that
    only the model's own end respects.
    """
    found = answers.once(_stopping)
    one = said(read_answer(found.held_off))
    least = found.whole.tokens.index(found.token) + 3
    problems = [] if len(one.tokens) >= least else [f"{len(one.tokens)} tokens, not {least}"]
    if found.token in one.tokens[: least - 1]:
        problems.append(f"the stop token {found.token} came before the floor")
    specified(record_check, problems)


@check(69)
def test_longest_prompt(answers: Answers, record_check: RecordCheck, max_model_len: int) -> None:
    """A prompt that leaves room for one token is answered with one.

    Does not prove that it is attended to (see correctness). Would have caught
    deepseek-ai/DeepSeek-V2#83, whose KV cache was shorter than the model's length.
    """
    asked = _long(answers, max_model_len - 1)
    answer = read_answer(answers.client.post(COMPLETIONS, json=asked))
    problems = capped_problems(answer, 1)
    if (answer.get("usage") or {}).get("prompt_tokens") != max_model_len - 1:
        problems.append(f"usage is {answer.get('usage')}: the prompt was cut")
    specified(record_check, problems)


@check(69)
@pytest.mark.parametrize("over", [0, 1], ids=["no room", "too long"])
def test_overlong_prompt(
    server: Server, answers: Answers, record_check: RecordCheck, max_model_len: int, over: int
) -> None:
    """A prompt that leaves no room is refused at once, with a JSON error; one that is too long,
    with an error that names the limit. The server generates afterwards.

    Does not prove that a proxy says it so. Would have caught vllm PR#2163, where such a request
    hung.
    """
    answer = answers.client.post(COMPLETIONS, json=_long(answers, max_model_len + over))
    problems = refusal_problems(answer, Refusal("overlong", statuses=(400,)), within=QUICK)
    if over and str(max_model_len) not in answer.text:
        problems.append(f"the error does not name the limit: {answer.text[:200]}")
    generate(server, server.model, timeout=server.deployment.budgets.request)
    specified(record_check, problems)


@dataclass(frozen=True)
class Stopping:
    """One greedy text, and the same again, stopped in each way. piece: a part of it. token: one of
    its ids, the first time it occurs not being the first of all."""

    whole: Said
    piece: str
    token: int
    cut: httpx.Response
    kept: httpx.Response
    streamed: Stream
    by_token: httpx.Response
    held_off: httpx.Response


def _stopping(answers: Answers) -> Stopping:
    """One after the other: each must begin as the first did."""
    whole = said(answers.whole(UNSTOPPED))
    piece = stop_piece(whole.text)
    assert piece, f"nothing to stop at in {whole.text!r}"
    later = [token for token in whole.tokens if token != whole.tokens[0]] or [whole.tokens[0]]
    token, client = later[0], answers.client

    def asked(**changes: Any) -> dict[str, Any]:
        fixed: dict[str, Any] = {"max_tokens": STOPPED, "ignore_eos": True}
        return completion(answers.model, **fixed, return_token_ids=True, **changes)

    floor = whole.tokens.index(token) + 3
    return Stopping(
        whole=whole,
        piece=piece,
        token=token,
        cut=client.post(COMPLETIONS, json=asked(stop=[piece])),
        kept=client.post(COMPLETIONS, json=asked(stop=[piece], include_stop_str_in_output=True)),
        streamed=read_stream(client, COMPLETIONS, asked(stop=[piece])),
        by_token=client.post(COMPLETIONS, json=asked(stop_token_ids=[token])),
        held_off=client.post(COMPLETIONS, json=asked(stop_token_ids=[token], min_tokens=floor)),
    )


def _long(answers: Answers, length: int) -> dict[str, object]:
    """A prompt of so many tokens, given as ids: no text has a length in tokens to rely on."""
    asked = {"model": answers.model, "prompt": " sea"}
    found = read_answer(answers.client.post("/tokenize", json=asked))
    return completion(answers.model, prompt=found["tokens"][-1:] * length, max_tokens=1)
