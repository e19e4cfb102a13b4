"""Requests that cannot be served are refused at once and in words, and harm nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.bodies import PATHS, body
from acceptance.conformance.refusals import QUICK, REFUSALS, Refusal, refusal_problems
from acceptance.serving.generation import generate
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_refused(
    server: Server, http: httpx.Client, record_check: RecordCheck, refusal: Refusal
) -> None:
    """A 4xx with a JSON error that says something, within 2 s; then the server still generates.

    Does not prove that every bad request is refused: vLLM 0.32 lets unknown fields pass. Would
    have caught vllm PR#53357, where a plain ValueError became 500.
    """
    if refusal.raw is not None:
        sent = {"Content-Type": refusal.content_type}
        answer = http.post(PATHS[refusal.kind], content=refusal.raw, headers=sent)
    else:
        asked = body(refusal.kind, server.model, **(refusal.changes or {}))
        answer = http.post(PATHS[refusal.kind], json=asked)
    problems = refusal_problems(answer, refusal, within=QUICK)
    generate(server, server.model, timeout=server.deployment.budgets.request)
    specified(record_check, problems)
