"""The decode path: the tokens that a server writes itself, which prefill never touches."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING

from acceptance.correctness.compare import agreement, first_splits
from acceptance.correctness.decoding import as_decoded, as_prefilled
from acceptance.correctness.floor import rules
from acceptance.correctness.scoring import score
from acceptance.judging.judgement import Kind, Limit, Measurement
from suites.correctness.holding import WRITTEN, agree, between

if TYPE_CHECKING:
    import httpx

    from acceptance.correctness.account import Account
    from acceptance.correctness.floor import Floor
    from acceptance.correctness.golden import Golden
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run

DECODED = 1.5  # decode and prefill are two kernels, each with its rounding
MEDIAN_GAP = 0.5  # nats; splits at surer tokens are a defect whatever their rate


def test_decoding_says_what_prefill_says(
    server: Server,
    deployment: Deployment,
    bulk: httpx.Client,
    account: Account,
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """The log-probabilities that greedy tokens were written with are those that the same tokens
    score when they are given.

    Does not prove either right: see transformers. Would have caught vllm#31840 (R1 FP4 wrong with
    CUDA graphs only) and a decode kernel that reads the cache of another request.
    """
    given = {one.name: [*one.prompt, *one.tokens] for one in account.greedy}
    scored = score(bulk, server.model, given)
    prefilled, decoded = as_prefilled(account.greedy, scored), as_decoded(account.greedy)
    limits = between(floor, run, deployment, factor=DECODED)
    agree(judge, "decode", agreement(prefilled, decoded), limits, WRITTEN)


def test_layouts_choose_the_same_greedy_tokens(
    account: Account, other_layouts: dict[str, Account], floor: Floor, judge: Judge
) -> None:
    """TP+EP and DP+EP choose the same tokens wherever the choice is clear.

    Where continuations first differ, the gap between the two best tokens lies within the noise: of
    the largest difference about any single given token, the two layouts' or one server's own. Noise
    that is itself a defect fails the test of log-probabilities. Does not prove either text right.
    Would have caught decode kernels that differ from prefill (vllm#31840).
    """
    for name, theirs in other_layouts.items():
        judge_splits(judge, floor, account, theirs, name)


def test_greedy_tokens_are_those_of_the_golden_record(
    account: Account, golden: Golden, floor: Floor, judge: Judge
) -> None:
    """Greedy text splits from that of the accepted run only where two tokens were near a tie.

    Does not prove the accepted run right. Would have caught an upgrade whose decode kernels differ
    from the old ones.
    """
    against = f"{golden.deployment}, vLLM {golden.vllm}"
    judge_splits(judge, floor, account, golden.account, against)


def judge_splits(judge: Judge, floor: Floor, mine: Account, theirs: Account, against: str) -> None:
    """Judges where two accounts' greedy texts first differ."""
    splits = first_splits(mine.greedy, theirs.greedy)
    gaps = sorted(split.gap for split in splits) or [0.0]
    known = {one.name for one in theirs.scored}
    both = [one for one in mine.scored if one.name in known]
    names = {one.name for one in both}
    noise = floor.single(agreement(both, [one for one in theirs.scored if one.name in names]))
    rule = rules()["quantity"]["worst"]
    evidence = {
        "against": against,
        "prompts": len(mine.greedy),
        "tokens": len(mine.greedy[0].tokens),
        "split": len(splits),
        "splits": [asdict(split) for split in splits],
    }
    least = rule["least"][floor.precision.value]
    source = (
        f"acceptance/correctness/tolerances.toml: {rule['factor']:g} x the largest difference "
        f"about a given token, {noise:.3g} nats in this run, at least {least:g}"
    )
    middle = Limit(
        kind=Kind.CEILING,
        upper=MEDIAN_GAP,
        unit="nats",
        source="declared by this suite: splits at surer tokens are a defect whatever their rate",
    )
    most = Limit(
        kind=Kind.CEILING, upper=max(least, rule["factor"] * noise), unit="nats", source=source
    )
    for name, value, limit in (
        ("greedy_split_gap_median", statistics.median(gaps), middle),
        ("greedy_split_gap_max", gaps[-1], most),
    ):
        judge(
            Measurement(name=name, value=value, unit="nats", evidence=evidence),
            limit=limit,
            against=against,
        )
