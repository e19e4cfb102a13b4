"""Are the log-probabilities right: against an independent implementation, and of one checkpoint
against itself on other layouts and in an accepted run.

A server that computes nonsense looks healthy: every request answers 200, every metric moves
(vllm#23282 served R1 with a GSM8K score of 0.005).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from acceptance.correctness.compare import Agreement, agreement
from acceptance.correctness.floor import PRECISION, rules
from acceptance.correctness.reference import reference_scores
from acceptance.correctness.strata import strata
from acceptance.errors import ObservationError
from acceptance.rehearsal.checkpoint import UNPACKED
from fixtures.correctness import folder_of
from fixtures.judging import not_applicable, unobservable
from suites.correctness.holding import agree, between

if TYPE_CHECKING:
    from acceptance.correctness.account import Account
    from acceptance.correctness.floor import Floor
    from acceptance.correctness.golden import Golden
    from acceptance.correctness.scoring import Scored
    from acceptance.correctness.strata import Shape
    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge
    from fixtures.run import Run


def test_log_probabilities_agree_with_transformers(
    server: Server,
    deployment: Deployment,
    scored: list[Scored],
    prompts: dict[str, list[int]],
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """Teacher-forced log-probabilities equal those of transformers' DeepseekV3ForCausalLM.

    Both read the same checkpoint; transformers computes in float32, in a process of its own, and
    once more in bfloat16, which shows what precision alone makes of it. Of FP8 or NVFP4 weights it
    reads what their values mean, so that kernels are judged and not the loss of quantising. Does
    not prove decode kernels (see test_decode.py) nor that quantising lost little. Would have caught
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
    folder = folder_of(run.run_dir) / "reference"  # one for all layouts: each asks the same
    python = server.vllm.python
    unpacked = Path(server.model_path) / UNPACKED
    checkpoint = str(unpacked) if unpacked.is_dir() else server.model_path
    reference = reference_scores(checkpoint, dict(prompts), folder, python=python)
    floor.parts[PRECISION] = agreement(reference.exact, reference.rounded)
    agree(judge, "prompt", agreement(reference.exact, scored), between(floor, run, deployment))


def test_layouts_agree_on_log_probabilities(
    deployment: Deployment,
    account: Account,
    other_layouts: dict[str, Account],
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """TP+EP and DP+EP of one checkpoint say the same of the same tokens, but for numeric noise.

    Does not prove that both are right: see transformers. Would have caught vllm#31918 (R1 FP4
    under DP+EP scored 0.04 on GSM8K, with one all2all backend only).
    """
    for name, theirs in other_layouts.items():
        found = agreement(theirs.scored, account.scored)
        agree(judge, "layout", found, between(floor, run, deployment), against=name)


def test_log_probabilities_agree_with_the_golden_record(
    deployment: Deployment,
    account: Account,
    golden: Golden,
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """The tokens score as they did in the accepted run that left the golden record.

    It is bound to checkpoint, tokenizer and texts; another is refused before a server starts. Does
    not prove the accepted run right. Would have caught an upgrade that costs accuracy with no sign
    of it, as DeepGEMM's E8M0 scales did on Blackwell (vllm PR 38083, of Qwen3.5, 12 points).
    """
    known = {one.name for one in golden.account.scored}
    mine = [one for one in account.scored if one.name in known]
    theirs = {one.name: one for one in golden.account.scored}
    found = agreement([theirs[one.name] for one in mine], mine)
    against = f"{golden.deployment}, vLLM {golden.vllm}"
    agree(judge, "golden", found, between(floor, run, deployment), against=against)


@pytest.fixture(scope="session")
def compared(
    request: pytest.FixtureRequest, scored: list[Scored], floor: Floor, deployment: Deployment
) -> dict[str, tuple[list[Scored], list[Scored]]]:
    """What else there is of the same texts: golden record, other layouts, and else the server
    itself asked again."""
    found: dict[str, tuple[list[Scored], list[Scored]]] = {}
    for name in ("golden", "other_layouts"):
        try:
            value = request.getfixturevalue(name)
        except pytest.skip.Exception:
            continue
        accounts = value if isinstance(value, dict) else {"golden": value.account}
        for against, account in accounts.items():
            theirs = {one.name: one for one in account.scored}
            mine = [one for one in scored if one.name in theirs]
            found[against] = ([theirs[one.name] for one in mine], mine)
    return found


def test_agreement_holds_at_every_position(
    compared: dict[str, tuple[list[Scored], list[Scored]]],
    deployment: Deployment,
    shape: Shape,
    floor: Floor,
    run: Run,
    judge: Judge,
) -> None:
    """Agreement holds where averages hide defects: at borders of pages and chunks, at the start,
    beyond 8k and 32k tokens.

    Does not prove positions that no text reaches. Would have caught vllm#31840 (numerics that
    broke with chunks of 1024 tokens only).
    """
    if not compared:
        not_applicable("neither another layout nor a golden record to be compared with")
    rule = rules()["strata"]
    judged = 0
    for against, (theirs, mine) in compared.items():
        for name, where in strata(shape).items():
            found = _within(theirs, mine, where)
            if found is None or found.positions < rule["least"]:
                continue
            judged += 1
            limits = between(floor, run, deployment, factor=rule["factor"])
            quantities = ("mean", "disagreement")
            agree(judge, "stratum", found, limits, quantities, stratum=name, against=against)
    assert judged, "no stratum has enough positions"


def _within(left: list[Scored], right: list[Scored], where: object) -> Agreement | None:
    try:
        return agreement(left, right, where)  # type: ignore[arg-type]
    except ObservationError as error:
        if "no position" in str(error):
            return None
        raise
