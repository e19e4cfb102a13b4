"""Does the same request say the same: greedy, and with a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acceptance.correctness.asking import ask, each
from acceptance.correctness.scoring import token_id
from acceptance.judging.judgement import Kind, Limit, Measurement
from suites.checklist import check

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import Judge, RecordCheck

REPEATS, CROWD, TOKENS = 10, 16, 12
QUESTION = "Tell me about the harbour at dawn."


def said(http: httpx.Client, model: str, **more: Any) -> tuple[int, ...]:
    """Token ids of one chat answer. Raises ObservationError."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "return_token_ids": True,
        "logprobs": True,
        "top_logprobs": 0,
        "return_tokens_as_token_ids": True,
        **more,
    }
    listed = ask(http, "/v1/chat/completions", body)["choices"][0]["logprobs"]["content"]
    return tuple(token_id(entry["token"]) for entry in listed)


@check(30)
def test_one_seed_says_one_thing(
    server: Server, bulk: httpx.Client, record_check: RecordCheck
) -> None:
    """Sampled twice with one seed, one after the other, the tokens are the same; with other seeds
    they are not all the same.

    Does not prove it under load. Would have caught a seed that is dropped on the way, or one that
    all requests share.
    """
    first = said(bulk, server.model, temperature=1.0, seed=7)
    again = said(bulk, server.model, temperature=1.0, seed=7)
    others = [said(bulk, server.model, temperature=1.0, seed=seed) for seed in (8, 9, 10)]
    record_check(first, again, others=[list(other) for other in others])
    assert again == first, "one seed said two things"
    assert any(other != first for other in others), "four seeds said one thing"


@check(31, inform=True)
def test_a_seed_repeats_under_load(server: Server, bulk: httpx.Client, judge: Judge) -> None:
    """How often one seed says the same in a crowd of itself and others.

    Does not prove a defect where it does not: only batch-invariant kernels promise it. Would have
    caught nothing yet; it is shown so that a promise of reproducibility is not made by accident.
    """
    first = said(bulk, server.model, temperature=1.0, seed=7)
    seeds = [7 if number % 2 else 100 + number for number in range(CROWD)]
    answers = each(lambda s: said(bulk, server.model, temperature=1.0, seed=s), seeds, CROWD)
    same = [answer == first for seed, answer in zip(seeds, answers, strict=True) if seed == 7]
    judge(
        Measurement(name="seed_repeats_under_load", value=sum(same) / len(same), unit="ratio"),
        required=False,
    )


@check(32)
def test_greedy_repeats_ten_times(server: Server, bulk: httpx.Client, judge: Judge) -> None:
    """The same greedy request, ten times one after the other, gets the same tokens.

    Does not prove it under load, where batches change the arithmetic. Would have caught a buffer
    that one request leaves dirty for the next.
    """
    answers = [said(bulk, server.model, temperature=0) for _ in range(REPEATS)]
    judge(
        Measurement(
            name="different_greedy_answers",
            value=len(set(answers)),
            unit="count",
            evidence={"answers": [list(answer) for answer in dict.fromkeys(answers)]},
        ),
        limit=Limit(
            kind=Kind.EXPECTED, expected=1, unit="count", source="temperature 0 is deterministic"
        ),
    )
