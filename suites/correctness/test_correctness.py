"""Are the tokens right.

A server that computes nonsense looks healthy: every request answers 200, every metric moves
(vllm#23282 served R1 with a GSM8K score of 0.005). So its numbers are held against an independent
implementation, and layouts of one checkpoint against each other.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from acceptance.correctness.compare import agreement, first_splits
from acceptance.correctness.reference import reference_scores
from acceptance.correctness.scoring import Greedy, Scored, greedy, score, texts, tokenize
from acceptance.judging.judgement import Measurement
from fixtures.judging import not_applicable
from fixtures.selection import SELECTION

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run

GREEDY_TOKENS = 48
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
    folder = run.run_dir / "correctness" / deployment.name
    found = agreement(scored, reference_scores(server.model_path, dict(prompts), folder))
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


def test_greedy_tokens_agree_between_layouts(
    server: Server,
    deployment: Deployment,
    http: httpx.Client,
    prompts: dict[str, list[int]],
    run: Run,
    judge: Judge,
    request: pytest.FixtureRequest,
) -> None:
    """TP+EP and DP+EP of one checkpoint choose the same tokens wherever the choice is clear.

    Where they first differ, the gap between the two best tokens must lie within numeric noise.
    Does not prove that both are right: see transformers. Would have caught vllm#31918 (R1 FP4
    under DP+EP scored 0.04 on GSM8K, with one all2all backend only).
    """
    siblings = [
        other.name
        for other in request.config.stash[SELECTION].chosen
        if other.model == deployment.model and other.name != deployment.name
    ]
    if not siblings:
        not_applicable("no other layout of this checkpoint is part of the run")
    short = {name: tokens[:PROMPT_TOKENS] for name, tokens in prompts.items()}
    mine = greedy(http, server.model, short, GREEDY_TOKENS)
    folder = run.run_dir / "correctness"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "greedy.lock"):
        _keep(folder, deployment.name, mine)
        others = {name: said for name in siblings if (said := _kept(folder, name))}
    if not others:
        not_applicable(f"compared when {', '.join(siblings)} has run too")
    for name, theirs in others.items():
        splits = first_splits(mine, theirs)
        judge(
            Measurement(
                name="greedy_split_gap",
                value=max((split.gap for split in splits), default=0.0),
                unit="nats",
                evidence={
                    "against": name,
                    "prompts": len(mine),
                    "tokens": GREEDY_TOKENS,
                    "splits": [asdict(split) for split in splits],
                },
            ),
            against=name,
        )


def _keep(folder: Path, name: str, said: list[Greedy]) -> None:
    text = json.dumps([asdict(one) for one in said])
    (folder / f"{name}.greedy.json").write_text(text)


def _kept(folder: Path, name: str) -> list[Greedy]:
    path = folder / f"{name}.greedy.json"
    if not path.exists():
        return []
    return [
        Greedy(one["name"], tuple(one["tokens"]), tuple(one["gaps"]))
        for one in json.loads(path.read_text())
    ]
