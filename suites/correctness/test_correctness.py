"""Are the tokens right.

A server that computes nonsense looks healthy: every request answers 200, every metric moves
(vllm#23282 served R1 with a GSM8K score of 0.005). So its numbers are held against an independent
implementation, and layouts of one checkpoint against each other.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from acceptance.correctness.account import Account
from acceptance.correctness.compare import agreement, first_splits
from acceptance.correctness.reference import reference_scores
from acceptance.correctness.scoring import Scored, greedy, score, texts, tokenize
from acceptance.judging.judgement import Kind, Limit, Measurement
from fixtures.judging import not_applicable, unobservable
from fixtures.selection import SELECTION

if TYPE_CHECKING:
    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run

GREEDY_TOKENS = 48
NOISE_FACTOR = 2.0  # a gap is the difference of two log-probabilities, each with its noise
PROMPT_TOKENS = 24


@pytest.fixture(scope="session")
def prompts(server: Server, http: httpx.Client) -> dict[str, list[int]]:
    """The shipped texts as token ids."""
    return {name: tokenize(http, server.model, text) for name, text in texts().items()}


@pytest.fixture(scope="session")
def scored(server: Server, http: httpx.Client, prompts: dict[str, list[int]]) -> list[Scored]:
    """What the server says of every token of the texts."""
    return score(http, server.model, dict(prompts))


def test_log_probabilities_agree_with_transformers(
    server: Server,
    deployment: Deployment,
    scored: list[Scored],
    prompts: dict[str, list[int]],
    run: Run,
    judge: Judge,
) -> None:
    """Teacher-forced log-probabilities equal those of transformers' DeepseekV3ForCausalLM.

    Both read the same checkpoint; transformers computes in float32, in a process of its own. Does
    not prove decode kernels (see the greedy test) nor precision of FP8 or FP4. Would have caught
    vllm#12892 and vllm#25639 (incoherent R1), and two defects of vLLM 0.32 on CPU that it did find
    when this suite was built: expert ids that ignore the expert map, and plain RoPE on a strided
    query.
    """
    if not deployment.model_is_generated:
        not_applicable("transformers cannot hold this checkpoint; see accuracy on its own tasks")
    if server.vllm is None:
        unobservable("reference", "transformers comes with vLLM, and no vLLM is installed here")
    if not Path(server.model_path).is_dir():
        unobservable("checkpoint", f"{server.model_path} is no folder of this host")
    folder = run.run_dir / "correctness" / deployment.name
    python = server.vllm.python
    reference = reference_scores(server.model_path, dict(prompts), folder, python=python)
    found = agreement(scored, reference)
    evidence = asdict(found)
    judge(
        Measurement(
            name="prompt_logprob_abs_diff_median",
            value=found.median,
            unit="nats",
            evidence=evidence,
        ),
        Measurement(
            name="prompt_logprob_abs_diff_mean", value=found.mean, unit="nats", evidence=evidence
        ),
        Measurement(
            name="prompt_top1_agreement", value=found.same_best, unit="ratio", evidence=evidence
        ),
    )


def test_scoring_twice_agrees(
    server: Server,
    http: httpx.Client,
    scored: list[Scored],
    prompts: dict[str, list[int]],
    judge: Judge,
) -> None:
    """The same texts scored again say the same, but for the noise of batching.

    This is the noise floor that other comparisons are read against. Does not prove either answer
    right. Would have caught vllm-ascend#5269 (correct the first time, garbled after).
    """
    again = agreement(scored, score(http, server.model, dict(prompts)))
    judge(
        Measurement(
            name="repeat_logprob_abs_diff_median",
            value=again.median,
            unit="nats",
            evidence=asdict(again),
        )
    )


@pytest.fixture(scope="session")
def other_layouts(
    server: Server,
    deployment: Deployment,
    http: httpx.Client,
    scored: list[Scored],
    prompts: dict[str, list[int]],
    run: Run,
    request: pytest.FixtureRequest,
) -> tuple[Account, dict[str, Account]]:
    """This layout's account of the texts, and those of other layouts of the same checkpoint that
    were taken before it in this run. Whichever layout runs last compares."""
    siblings = [
        other.name
        for other in request.config.stash[SELECTION].chosen
        if other.model == deployment.model and other.name != deployment.name
    ]
    if not siblings:
        not_applicable("no other layout of this checkpoint is part of the run")
    short = {name: tokens[:PROMPT_TOKENS] for name, tokens in prompts.items()}
    mine = Account(scored, greedy(http, server.model, short, GREEDY_TOKENS))
    folder = run.run_dir / "correctness"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "accounts.lock"):
        mine.write(folder / f"{deployment.name}.json")
        paths = {name: folder / f"{name}.json" for name in siblings}
        taken = {name: Account.read(path) for name, path in paths.items() if path.exists()}
    if not taken:
        not_applicable(f"compared when {', '.join(siblings)} has run too")
    return mine, taken


def test_layouts_agree_on_log_probabilities(
    other_layouts: tuple[Account, dict[str, Account]], judge: Judge
) -> None:
    """TP+EP and DP+EP of one checkpoint say the same of the same tokens, but for numeric noise.

    Does not prove that both are right: see transformers. Would have caught vllm#31918 (R1 FP4
    under DP+EP scored 0.04 on GSM8K, with one all2all backend only).
    """
    mine, others = other_layouts
    for name, theirs in others.items():
        found = agreement(mine.scored, theirs.scored)
        evidence = {"against": name, **asdict(found)}
        judge(
            Measurement(
                name="layout_logprob_abs_diff_median",
                value=found.median,
                unit="nats",
                evidence=evidence,
            ),
            Measurement(
                name="layout_top1_agreement",
                value=found.same_best,
                unit="ratio",
                evidence=evidence,
            ),
            against=name,
        )


def test_layouts_choose_the_same_greedy_tokens(
    other_layouts: tuple[Account, dict[str, Account]], judge: Judge
) -> None:
    """TP+EP and DP+EP choose the same tokens wherever the choice is clear.

    Where continuations first differ, the gap between the two best tokens lies within the noise:
    the largest difference the two layouts have about any single given token. Noise that is itself
    a defect fails the test above. Does not prove either text right. Would have caught decode
    kernels that differ from prefill (vllm#31840).
    """
    mine, others = other_layouts
    for name, theirs in others.items():
        splits = first_splits(mine.greedy, theirs.greedy)
        gaps = sorted(split.gap for split in splits) or [0.0]
        noise = agreement(mine.scored, theirs.scored).worst
        evidence = {
            "against": name,
            "prompts": len(mine.greedy),
            "tokens": GREEDY_TOKENS,
            "splits": [asdict(split) for split in splits],
        }
        judge(
            Measurement(
                name="greedy_split_gap_median",
                value=statistics.median(gaps),
                unit="nats",
                evidence=evidence,
            ),
            against=name,
        )
        judge(
            Measurement(
                name="greedy_split_gap_max", value=gaps[-1], unit="nats", evidence=evidence
            ),
            limit=Limit(
                kind=Kind.CEILING,
                upper=NOISE_FACTOR * noise,
                unit="nats",
                source=f"{NOISE_FACTOR} x the largest difference between the two layouts about a "
                "given token, in this run",
            ),
            against=name,
        )
