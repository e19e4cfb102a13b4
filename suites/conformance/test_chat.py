"""Chat completions: the form of an answer, and that it depends on nothing but the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.conformance.answers import capped_problems, shape_problems
from acceptance.conformance.bodies import QUESTION
from acceptance.conformance.said import said
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import openai

    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

REPEATS = 10
TOGETHER = Requests()
PLAIN = TOGETHER.whole("chat")
CAPPED = TOGETHER.whole("chat", max_tokens=9, max_completion_tokens=5, ignore_eos=True)
THREE = TOGETHER.whole("chat", n=3, temperature=1, max_tokens=4, ignore_eos=True)
REPEATED = Requests(alone=True)
AGAIN = [REPEATED.whole("chat", max_tokens=8, return_token_ids=True) for _ in range(REPEATS)]


@check(13)
def test_shape(server: Server, answers: Answers, record_check: RecordCheck) -> None:
    """An answer fits the schema of OpenAI's client, names our model and says something.

    Does not prove that what it says makes sense. Would have caught vllm#55486: only BOS tokens,
    and so an empty content.
    """
    specified(record_check, shape_problems("chat", answers.whole(PLAIN), model=server.model))


@check(13)
def test_openai_client(
    server: Server, openai_client: openai.OpenAI, record_check: RecordCheck
) -> None:
    """OpenAI's own client gets an answer by base URL and key alone, without a retry.

    Does not prove other clients. Would have caught a path or header that only our requests know.
    """
    from openai import APIError  # here: importing it takes most of a second

    try:
        answer = openai_client.chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=4,
            temperature=0,
        )
    except APIError as error:
        specified(record_check, [f"the client gives up: {error}"])
        return
    problems = [] if answer.usage and answer.usage.completion_tokens else ["it counts no token"]
    problems += shape_problems("chat", answer.model_dump(), model=server.model)
    specified(record_check, problems)


@check(32)
def test_greedy_repeats(answers: Answers, record_check: RecordCheck) -> None:
    """The same greedy request, asked ten times one after the other, gets the same tokens.

    Does not prove it under load, where batches change the arithmetic, nor from the prefix cache,
    which so short a prompt does not reach (vllm-ascend#5269). Would have caught a buffer that one
    request leaves dirty for the next.
    """
    first, *later = [said(answers.whole(request)) for request in AGAIN]
    specified(record_check, [f"{first} and then {other}" for other in later if other != first])


@check(21)
def test_max_completion_tokens(answers: Answers, record_check: RecordCheck) -> None:
    """max_completion_tokens caps like max_tokens, and goes before it.

    Does not prove that reasoning counts into it. Would have caught clients of the newer field
    whose answers ran to the end of the context.
    """
    specified(record_check, capped_problems(answers.whole(CAPPED), 5))


@check(29)
def test_several_choices(server: Server, answers: Answers, record_check: RecordCheck) -> None:
    """n=3 gives three choices, numbered 0 to 2, whose tokens usage counts together.

    Does not prove them independent. Would have caught choices that all carry index 0.
    """
    answer = answers.whole(THREE)
    problems = shape_problems("chat", answer, model=server.model, choices=3)
    generated = (answer.get("usage") or {}).get("completion_tokens")
    if generated != 12:
        problems.append(f"usage counts {generated} tokens, not 12")
    specified(record_check, problems)
