"""What ends a generation: its cap, a stop string, the end of the context; and what must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.answers import (
    capped_problems,
    read_answer,
    stop_piece,
    stop_problems,
)
from acceptance.conformance.bodies import COMPLETIONS, PATHS, body, completion
from acceptance.conformance.refusals import QUICK, Refusal, refusal_problems
from acceptance.conformance.said import said, said_in
from acceptance.conformance.sse import read_stream
from acceptance.serving.generation import generate
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck

LONG = 128  # tokens; more than a short answer has
STOPPED = 32  # tokens of the text that a stop string is taken from


@pytest.mark.parametrize("cap", [1, 7])
@pytest.mark.parametrize("kind", sorted(PATHS))
def test_max_tokens(
    server: Server, http: httpx.Client, record_check: RecordCheck, kind: str, cap: int
) -> None:
    """max_tokens=k gives k tokens, finished by length, when nothing else ends the answer.

    Does not prove it of long answers. Would have caught answers one token short, which shift every
    throughput figure computed from the tokens asked for.
    """
    asked = body(kind, server.model, max_tokens=cap, ignore_eos=True)
    specified(record_check, capped_problems(read_answer(http.post(PATHS[kind], json=asked)), cap))


def test_ignore_eos_runs_to_the_cap(
    server: Server, http: httpx.Client, record_check: RecordCheck, max_model_len: int
) -> None:
    """ignore_eos generates through the model's own end to the cap.

    Does not prove that the model would have ended before it. Would have caught benchmarks whose
    requests ended early and so looked fast.
    """
    cap = min(LONG, max_model_len // 2)
    asked = completion(server.model, max_tokens=cap, ignore_eos=True)
    specified(record_check, capped_problems(read_answer(http.post(COMPLETIONS, json=asked)), cap))


@pytest.mark.parametrize("included", [False, True], ids=["cut", "included"])
def test_stop_string(
    server: Server, http: httpx.Client, record_check: RecordCheck, included: bool
) -> None:
    """A generation ends at the stop string, without it or, if asked, with it, and names it.

    Does not prove it of several strings. Would have caught agents that run on past their marker.
    """
    whole, piece = _text_and_piece(server, http)
    asked = _stopped(server.model, piece, include_stop_str_in_output=included)
    answer = read_answer(http.post(COMPLETIONS, json=asked))
    specified(record_check, stop_problems(answer, whole, piece, included=included))


def test_stop_string_never_leaks_into_a_stream(
    server: Server, http: httpx.Client, record_check: RecordCheck
) -> None:
    """A streamed generation holds back what may become the stop string: no part of it is sent.

    Does not prove it for every split of it into tokens. Would have caught a marker's first half
    shown to a user.
    """
    whole, piece = _text_and_piece(server, http)
    streamed = said_in(read_stream(http, COMPLETIONS, _stopped(server.model, piece)))
    expected = whole[: whole.index(piece)]
    problems = []
    if streamed.text != expected:
        problems.append(f"streamed {streamed.text!r}, not {expected!r}")
    if (streamed.finish_reason, streamed.stop_reason) != ("stop", piece):
        problems.append(f"ended by {streamed.finish_reason!r}, {streamed.stop_reason!r}")
    specified(record_check, problems)


def test_longest_prompt(
    server: Server, http: httpx.Client, record_check: RecordCheck, max_model_len: int
) -> None:
    """A prompt that leaves room for one token is answered with one.

    Does not prove that it is attended to (see correctness). Would have caught
    deepseek-ai/DeepSeek-V2#83, whose KV cache was shorter than the model's length.
    """
    asked = _long(server, http, max_model_len - 1)
    answer = read_answer(http.post(COMPLETIONS, json=asked))
    problems = capped_problems(answer, 1)
    if (answer.get("usage") or {}).get("prompt_tokens") != max_model_len - 1:
        problems.append(f"usage is {answer.get('usage')}: the prompt was cut")
    specified(record_check, problems)


@pytest.mark.parametrize("over", [0, 1], ids=["no room", "too long"])
def test_overlong_prompt(
    server: Server, http: httpx.Client, record_check: RecordCheck, max_model_len: int, over: int
) -> None:
    """A prompt that leaves no room is refused at once, with a JSON error; one that is too long,
    with an error that names the limit. The server generates afterwards.

    Does not prove that a proxy says it so. Would have caught vllm PR#2163, where such a request
    hung.
    """
    answer = http.post(COMPLETIONS, json=_long(server, http, max_model_len + over))
    problems = refusal_problems(answer, Refusal("overlong", statuses=(400,)), within=QUICK)
    if over and str(max_model_len) not in answer.text:
        problems.append(f"the error does not name the limit: {answer.text[:200]}")
    generate(server, server.model, timeout=server.deployment.budgets.request)
    specified(record_check, problems)


def _text_and_piece(server: Server, http: httpx.Client) -> tuple[str, str]:
    asked = completion(server.model, max_tokens=STOPPED, ignore_eos=True)
    whole = said(read_answer(http.post(COMPLETIONS, json=asked))).text
    piece = stop_piece(whole)
    assert piece, f"nothing to stop at in {whole!r}"
    return whole, piece


def _stopped(model: str, piece: str, **changes: object) -> dict[str, object]:
    return completion(model, max_tokens=STOPPED, ignore_eos=True, stop=[piece], **changes)


def _long(server: Server, http: httpx.Client, length: int) -> dict[str, object]:
    """A prompt of so many tokens, given as ids: no text has a length in tokens to rely on."""
    found = read_answer(http.post("/tokenize", json={"model": server.model, "prompt": " sea"}))
    return completion(server.model, prompt=found["tokens"][-1:] * length, max_tokens=1)
