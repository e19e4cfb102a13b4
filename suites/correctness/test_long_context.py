"""Is everything in a long context seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.correctness.asking import ask
from acceptance.correctness.crowd import ask_all
from acceptance.correctness.needle import DEPTHS, fitted, lengths
from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.rehearsal.tasks import is_right
from fixtures.judging import not_applicable
from suites.checklist import check

if TYPE_CHECKING:
    import httpx
    import pytest

    from acceptance.correctness.strata import Shape
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge

EACH = 3  # needles of one length and depth
FOUND = 0.6  # of them at least: two of three; a model may err, a blind spot finds none
CONCURRENT = 8


@check(87)
def test_a_needle_is_found_at_every_depth(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    shape: Shape,
    pytestconfig: pytest.Config,
    judge: Judge,
) -> None:
    """A fact at 0, 25, 50, 75 and 100 % of the context is found, up to max_model_len - 512 tokens.

    Does not prove reasoning over a long context. Would have caught rope scaling that is left out,
    and attention that skips a chunk or a page.
    """
    if not deployment.trained:
        not_applicable("the weights learned nothing, so no needle is found")

    def count(prompt: str) -> int:
        body = {"model": server.model, "messages": [{"role": "user", "content": prompt}]}
        return len(ask(bulk, "/tokenize", body)["tokens"])

    needles = [
        fitted(length, depth, seed, count)
        for length in lengths(shape.length, pytestconfig.option.tier)
        for depth in DEPTHS
        for seed in range(EACH)
    ]
    tokens = 448 if deployment.lane is Lane.FULL else 64
    said = ask_all(bulk, server.model, [n.task for n in needles], tokens, CONCURRENT)
    found: dict[str, list[bool]] = {}
    for needle, answer in zip(needles, said, strict=True):
        right = is_right(needle.task, answer.content)
        found.setdefault(f"{needle.length} tokens, {needle.depth:.0%}", []).append(right)
    shares = {where: sum(right) / len(right) for where, right in found.items()}
    judge(
        Measurement(
            name="needles_found_where_fewest",
            value=min(shares.values()),
            unit="ratio",
            evidence={"found": shares, "longest": max(needle.tokens for needle in needles)},
        ),
        limit=Limit(
            kind=Kind.FLOOR,
            lower=FOUND,
            unit="ratio",
            source=f"declared by this suite: {FOUND:.0%} of {EACH} needles at each depth",
        ),
    )
