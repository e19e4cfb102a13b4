"""The noise floor: how far one server lies from itself. Every tolerance of the other comparisons
comes from it by the rule in acceptance/correctness/tolerances.toml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.correctness.compare import agreement
from acceptance.correctness.floor import own_limit
from acceptance.correctness.ranks import asked_ranks, score_rank
from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Kind, Limit, Measurement
from fixtures.correctness import FLOOR, folder_of
from fixtures.judging import not_applicable, unobservable
from suites.correctness.holding import against_itself, agree

if TYPE_CHECKING:
    import httpx

    from acceptance.correctness.floor import Floor
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run


def test_the_same_texts_score_the_same_again(floor: Floor, judge: Judge) -> None:
    """The same texts asked again, several at a time both times, get the same log-probabilities.

    Does not prove either answer right. Would have caught vllm-ascend#5269 (correct the first time,
    garbled after).
    """
    agree(judge, "repeat", floor.parts["repeat"], against_itself(floor.precision))


def test_a_text_alone_scores_as_in_a_batch(floor: Floor, judge: Judge) -> None:
    """Each text asked alone gets the log-probabilities that it got beside others.

    Does not prove batches of hundreds; see isolation. Would have caught a batch whose requests
    read each other's cache, and vllm#53411 (a default MoE backend that inflated log-probabilities
    by batch).
    """
    agree(judge, "batch", floor.parts["batch"], against_itself(floor.precision))


def test_every_rank_scores_the_same(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    prompts: dict[str, list[int]],
    floor: Floor,
    judge: Judge,
) -> None:
    """Each data-parallel rank, asked by name, says of the texts what rank 0 says.

    Does not prove ranks of a tensor-parallel group apart: those make one answer together. Would
    have caught one GPU with bad memory, or one shard loaded wrong, behind a load balancer that
    shows it in every n-th answer only.
    """
    if deployment.layout.data == 1:
        not_applicable("one engine has no other rank to be compared with")
    if deployment.lane is Lane.SIMULATED:
        not_applicable("the simulation does not route by rank")
    several = server.several
    if several is not None and set(several.metrics) != set(several.bases):
        unobservable("processes", "a gateway does not let its servers' ranks be asked by name")
    short = {name: tokens for name, tokens in prompts.items() if not name.startswith("long-")}
    ranks = range(deployment.layout.data)
    answers = [score_rank(bulk, server, short, rank) for rank in ranks]
    judge(
        Measurement(
            name="ranks_that_answered",
            value=len(asked_ranks(answers, named=several is None)),
            unit="count",
            evidence={"engines": [answer.engines for answer in answers]},
        ),
        limit=Limit(
            kind=Kind.EXPECTED,
            expected=len(ranks),
            unit="count",
            source="X-data-parallel-rank of vLLM 0.32, entrypoints/generate/base/serving.py",
        ),
    )
    for answer in answers[1:]:
        found = agreement(answers[0].scored, answer.scored)
        floor.parts[f"rank {answer.rank}"] = found
        agree(judge, "rank", found, against_itself(floor.precision), rank=answer.rank)


def test_the_noise_floor_is_told(
    floor: Floor, deployment: Deployment, run: Run, judge: Judge
) -> None:
    """The run names its noise floor, and the tolerances that it gives.

    Does not prove the tolerances right: the rule is declared, not measured. Would have caught
    comparisons held against a textbook epsilon.
    """
    path = folder_of(run.run_dir) / f"{deployment.name}{FLOOR}"
    path.write_text(floor.told, encoding="utf-8")
    for what in ("mean", "disagreement"):
        limit = floor.limit(what)
        judge(
            Measurement(
                name=f"noise_floor_{what}",
                value=floor.noise(what),
                unit=limit.unit,
                evidence={
                    "parts": {name: found.evidence for name, found in floor.parts.items()},
                    "tolerance": limit.upper,
                    "rule": limit.source,
                },
            ),
            limit=own_limit(what, floor.precision),
        )
