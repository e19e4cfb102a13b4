"""Is what the server writes language at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.correctness.degenerate import DATA, findings, limits
from acceptance.correctness.free import prompts as free_prompts
from acceptance.correctness.free import write_freely
from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Kind, Limit, Measurement

if TYPE_CHECKING:
    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import Judge

NOTHING = ("empty", "only-special")
BROKEN = ("repetition", "loop", "collapse")


def test_free_text_is_language(
    server: Server, deployment: Deployment, bulk: httpx.Client, judge: Judge
) -> None:
    """Sampled answers have content, and neither loop nor repeat nor collapse into a few tokens.

    Of weights that learned nothing only emptiness is judged. Does not prove that what is said is
    true. Would have caught vllm#55486 (only BOS tokens, empty content), vllm#12892, vllm#25639 and
    vllm#25994 (garbage from R1 and V3.1).
    """
    asked = free_prompts(deployment.model_is_generated)
    full = deployment.lane is Lane.FULL
    texts = write_freely(bulk, server.model, asked, 4096 if full else 64)
    # What was cut off while it reasoned is no sign of anything.
    found = {t.name: findings(t, expect_content=t.finish != "length") for t in texts}
    trained, source = deployment.trained, f"acceptance/correctness/{DATA.name}"
    judged = (
        ("texts_without_anything", NOTHING, 0.0, True),
        ("texts_that_degenerate", BROKEN, 0.0, trained),
        ("texts_of_reasoning_alone", ("only-reasoning",), limits()["only_reasoning"], trained),
    )
    for name, kinds, most, required in judged:
        told = {n: {k: v for k, v in what.items() if k in kinds} for n, what in found.items()}
        share = sum(bool(what) for what in told.values()) / len(texts)
        evidence = {"texts": len(texts), "found": {n: w for n, w in told.items() if w}}
        judge(
            Measurement(name=name, value=share, unit="ratio", evidence=evidence),
            limit=Limit(kind=Kind.CEILING, upper=most, unit="ratio", source=source),
            required=required,
        )
