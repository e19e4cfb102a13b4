"""Does the prefix cache change what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.correctness.compare import agreement
from acceptance.correctness.crowd import different_prompts
from acceptance.correctness.decoding import as_decoded
from acceptance.correctness.ranks import HEADER, counted
from acceptance.correctness.scoring import Greedy, greedy
from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.serving.client import client
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.correctness.holding import WRITTEN, agree, between

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from acceptance.correctness.floor import Floor
    from acceptance.correctness.strata import Shape
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.live import LiveConfig
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run

HITS = "vllm:prefix_cache_hits_total"
PROMPTS, BLOCKS, SAID = 6, 5, 16
ONE_RANK = {HEADER: "0"}  # each rank has a cache of its own


@pytest.fixture(scope="session")
def cached(config: LiveConfig, shape: Shape, prompts: dict[str, list[int]]) -> dict[str, list[int]]:
    """Prompts of several whole blocks, where the server has a prefix cache."""
    if not any(engine.prefix_caching for engine in config.engines.values()):
        not_applicable(
            "the server has no prefix cache: off by profile, or forced off for MLA on CPU"
        )
    length = min(BLOCKS * shape.page + 3, shape.length // 2)
    return different_prompts(prompts, PROMPTS, length)


@pytest.fixture(scope="session")
def one_server(server: Server) -> Iterator[httpx.Client]:
    """A client that stays at one address of several: each server has a cache of its own."""
    timeout = 4 * server.deployment.budgets.request
    with client(server, timeout, at=server.base_url) as made:
        yield made


def _say(
    http: httpx.Client, server: Server, prompts: dict[str, list[int]], salt: str
) -> tuple[list[Greedy], float]:
    """Greedy answers, and how many tokens came from the cache meanwhile."""
    before = sum(counted(http, server, HITS).values())
    said = greedy(http, server.model, prompts, SAID, headers=ONE_RANK, extra={"cache_salt": salt})
    return said, sum(counted(http, server, HITS).values()) - before


@check(86)
def test_a_warm_cache_says_what_a_cold_one_did(
    server: Server,
    deployment: Deployment,
    one_server: httpx.Client,
    cached: dict[str, list[int]],
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """The same prompts asked again come from the prefix cache, and are answered the same.

    Scoring does not read the cache in vLLM, so the log-probabilities of generated tokens are
    compared, up to where a text splits. Does not prove entries that were evicted and came back.
    Would have caught vllm-ascend#5269 (garbled on a hit).
    """
    cold, _ = _say(one_server, server, cached, "one")
    warm, hits = _say(one_server, server, cached, "one")
    judge(
        Measurement(name="prefix_cache_hits", value=hits, unit="tokens"),
        limit=Limit(
            kind=Kind.FLOOR, lower=1, unit="tokens", source="a prompt of whole blocks, asked twice"
        ),
    )
    same = sum(one.tokens[0] == two.tokens[0] for one, two in zip(cold, warm, strict=True))
    judge(
        Measurement(name="cache_same_first_token", value=same, unit="count"),
        limit=Limit(
            kind=Kind.FLOOR,
            lower=PROMPTS - 1,
            unit="count",
            source="declared by this suite: at most one near tie",
        ),
    )
    left, right = _until_split(cold, warm)
    found = agreement(as_decoded(left), as_decoded(right))
    agree(judge, "cache", found, between(floor, run, deployment), WRITTEN)


@check(86)
def test_a_salt_keeps_caches_apart(
    server: Server,
    deployment: Deployment,
    one_server: httpx.Client,
    cached: dict[str, list[int]],
    judge: Judge,
) -> None:
    """Prompts under another salt find nothing in the cache that the first salt filled.

    Does not prove that timing tells nothing. Would have caught a tenant whose prompts can be
    guessed by how fast they are answered.
    """
    if deployment.lane is Lane.SIMULATED:
        not_applicable("the simulation knows no salt")
    _say(one_server, server, cached, "mine")
    _, hits = _say(one_server, server, cached, "theirs")
    judge(
        Measurement(name="hits_under_another_salt", value=hits, unit="tokens"),
        limit=Limit(kind=Kind.EXPECTED, expected=0, unit="tokens", source="cache_salt, vLLM"),
    )


def _until_split(cold: list[Greedy], warm: list[Greedy]) -> tuple[list[Greedy], list[Greedy]]:
    """Each pair up to the token before they differ: what follows belongs to other texts. A pair
    that differs at once has nothing in common, and counts in cache_same_first_token."""
    left, right = [], []
    for one, two in zip(cold, warm, strict=True):
        pairs = zip(one.tokens, two.tokens, strict=True)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(one.tokens))
        if same:
            left.append(_cut(one, same))
            right.append(_cut(two, same))
    return left, right


def _cut(one: Greedy, count: int) -> Greedy:
    return Greedy(one.name, one.prompt, one.tokens[:count], one.logprobs[:count], one.gaps[:count])
