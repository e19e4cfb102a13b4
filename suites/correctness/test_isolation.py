"""Does anybody get another's tokens: in a crowd, beside those who leave, after a preemption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.correctness.crowd import (
    alike_prompts,
    alone,
    ask_all,
    crowd_size,
    different_prompts,
    pressure,
    with_cancelled,
)
from acceptance.correctness.prompts import mixed_up, tagged, wrong
from acceptance.correctness.ranks import counted
from acceptance.correctness.scoring import greedy
from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Broken, Kind, Limit, Measurement
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.correctness.holding import WRITTEN, agree, between

if TYPE_CHECKING:
    import httpx

    from acceptance.correctness.floor import Floor
    from acceptance.correctness.strata import Shape
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.live import LiveConfig
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run

SAID, GIVEN = 16, 32  # tokens of an answer and of a prompt in a crowd
ALIKE, PAGES = 8, 4  # prompts that begin alike, and for how many pages
CROWDED = 1.5  # written in a crowd, scored alone: two kernels and two batches
ECHOED = 0.9  # share of nonces that come back: a model may err, a server may not mix up
SEQS = 256  # vLLM's default of --max-num-seqs for serving
# Tokens of KV cache that a run fills to force a preemption: minutes on a CPU.
AFFORDED = {Lane.FULL: 8_000_000, Lane.SLICE: 2_000_000, Lane.REHEARSAL: 40_000}
# Answers of a crowd that are scored alone, one after the other; of preempted ones the newest,
# which are preempted first.
LOOKED_AT = {Lane.FULL: 256, Lane.SLICE: 64, Lane.REHEARSAL: 12, Lane.SIMULATED: 16}
OUTSIDE = "declared by this suite: nobody's answer holds another's nonce"


@check(79)
def test_nobody_gets_another_ones_nonce(
    server: Server, deployment: Deployment, bulk: httpx.Client, judge: Judge
) -> None:
    """Requests with a nonce of their own, all at once, each get their own back, and no other's.

    Does not prove that other kinds of prompts are kept apart. Would have caught streams of two
    requests that were handed to the wrong clients, and a KV block given to two.
    """
    if not deployment.trained:
        not_applicable(
            "the weights learned nothing, so no nonce comes back; see the crowd's tokens"
        )
    tasks = tagged(crowd_size(deployment.scale.batch))
    tokens = 4096 if deployment.lane is Lane.FULL else 96
    said = ask_all(bulk, server.model, tasks, tokens, len(tasks))
    strange, lost = mixed_up(tasks, said), wrong(tasks, said)
    ids = {one.id for one in said}
    evidence = {"requests": len(tasks), "mixed_up": strange[:5], "wrong": lost[:5]}
    floor = Limit(kind=Kind.FLOOR, lower=ECHOED, unit="ratio", source="declared by this suite")
    for name, value, limit in (
        ("answers_with_anothers_nonce", len(strange), _exactly(0)),
        ("different_request_ids", len(ids), _exactly(len(tasks))),
    ):
        judge(Measurement(name=name, value=value, unit="count", evidence=evidence), limit=limit)
    share = 1 - len(lost) / len(tasks)
    judge(
        Measurement(name="nonces_echoed", value=share, unit="ratio", evidence=evidence),
        limit=floor,
    )


@check(79)
def test_a_crowd_changes_nobodys_tokens(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    prompts: dict[str, list[int]],
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """Greedy answers to different prompts, all asked at once, are as probable as they were written
    when each is scored alone.

    Does not prove anything of sampled answers. Would have caught sglang#17162 (garbled after
    experts were moved) in a crowd, and a KV block given to two requests.
    """
    size = crowd_size(deployment.scale.batch)
    crowd = greedy(
        bulk, server.model, different_prompts(prompts, size, GIVEN), SAID, concurrent=size
    )
    found = alone(bulk, server.model, crowd[-LOOKED_AT[deployment.lane] :])
    agree(judge, "crowd", found, between(floor, run, deployment, factor=CROWDED), WRITTEN)


@check(79)
def test_prompts_that_begin_alike_are_kept_apart(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    shape: Shape,
    prompts: dict[str, list[int]],
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """Prompts with one beginning of several pages and ends of their own, one after the other, are
    each answered as is probable after all of the prompt, when scored alone.

    Whether the server has a prefix cache or not; scoring does not read it. Does not prove entries
    that were evicted and came back. Would have caught a prefix cache, or a gateway that answers
    from one of its own, whose key leaves out how a prompt ends.
    """
    asked = alike_prompts(prompts, ALIKE, PAGES * shape.page + shape.page // 2, shape.page)
    said = greedy(bulk, server.model, asked, SAID, concurrent=1)
    found = alone(bulk, server.model, said)
    agree(judge, "alike", found, between(floor, run, deployment, factor=CROWDED), WRITTEN)


def test_those_who_leave_change_nobodys_tokens(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    prompts: dict[str, list[int]],
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """While every other client leaves after its first token, the answers of those who stay are as
    probable as they were written when each is scored alone.

    Does not prove that what they held is freed; conformance asks that. Would have caught an abort
    that frees the blocks of its neighbour.
    """
    size = max(8, crowd_size(deployment.scale.batch) // 2)
    stayed, left = with_cancelled(bulk, server.model, different_prompts(prompts, size, GIVEN), SAID)
    judge(
        Measurement(name="streams_left", value=left, unit="count"),
        limit=Limit(
            kind=Kind.FLOOR, lower=size // 4, unit="count", source="half of those asked for"
        ),
    )
    found = alone(bulk, server.model, stayed[-LOOKED_AT[deployment.lane] :])
    agree(judge, "cancel", found, between(floor, run, deployment, factor=CROWDED), WRITTEN)


@check(81)
def test_preemption_changes_nobodys_tokens(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    config: LiveConfig,
    shape: Shape,
    prompts: dict[str, list[int]],
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """More requests than the KV cache holds: some are preempted and computed anew, and what they
    say is as probable as it was written when scored alone.

    Does not prove preemption by swapping, which vLLM 0.32 has not. Would have caught a preempted
    request that goes on with another's blocks.
    """
    sizes = [engine.kv_tokens for engine in config.engines.values() if engine.kv_tokens]
    if not sizes or len(sizes) != len(config.engines):
        not_applicable("the server does not tell the size of its KV cache")
    seqs = deployment.options.max_num_seqs or SEQS
    plan = pressure(min(sizes), len(sizes), shape.length, seqs)
    if plan is None:
        not_applicable(
            f"{seqs} requests of {shape.length} tokens at once do not fill {min(sizes)} tokens"
        )
    afforded = AFFORDED.get(deployment.lane, AFFORDED[Lane.REHEARSAL])
    if plan.tokens > afforded:
        not_applicable(
            f"filling the KV cache takes {plan.tokens} tokens; this lane affords {afforded}"
        )
    before = sum(counted(bulk, server, "vllm:num_preemptions_total").values())
    asked = different_prompts(prompts, plan.count, plan.prompt)
    crowd = greedy(bulk, server.model, asked, plan.output, concurrent=plan.count)
    preempted = sum(counted(bulk, server, "vllm:num_preemptions_total").values()) - before
    none = "" if preempted else "no request was preempted, so this says nothing of preemption"
    judge(
        Measurement(
            name="preemptions",
            value=preempted,
            unit="count",
            evidence={"requests": plan.count, "prompt": plan.prompt, "output": plan.output},
            broken=(Broken(rule="preemption-forced", evidence=none),) if none else (),
        ),
        limit=Limit(kind=Kind.FLOOR, lower=1, unit="count", source="what the test forces"),
    )
    found = alone(bulk, server.model, crowd[-LOOKED_AT[deployment.lane] :])
    agree(judge, "preempted", found, between(floor, run, deployment, factor=CROWDED), WRITTEN)


def _exactly(count: int) -> Limit:
    return Limit(kind=Kind.EXPECTED, expected=count, unit="count", source=OUTSIDE)
