"""Where vLLM does otherwise than its callers may expect, it does so as it was seen to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.conformance.deviations import Deviation, deviations
from fixtures.judging import not_applicable
from suites.checklist import check
from suites.conformance.holding import beyond_simulation, shown

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server
    from fixtures.judging import Judge


@check(74, inform=True)
@pytest.mark.parametrize("deviation", deviations(), ids=lambda deviation: deviation.name)
def test_deviation(
    server: Server,
    http: httpx.Client,
    keyless: httpx.Client,
    judge: Judge,
    deviation: Deviation,
) -> None:
    """Does as this vLLM was seen to do, or shows what has changed: acceptance/conformance/
    deviations.toml says what, since when and by whose word.

    Does not prove that either is right. Would have caught an upgrade after which clients are
    refused for a field that was ignored before, or bound by one that was.
    """
    beyond_simulation(server.deployment)
    if not deviation.covers(server.version):
        not_applicable(f"nobody looked at vLLM {server.version} for this")
    if not deviation.applies(server.deployment.options, keyed=bool(server.api_key)):
        not_applicable(f"the deployment has not what it takes: {deviation.needs}")
    ask, client = deviation.ask, keyless if deviation.keyless else http
    answer = client.request(ask.method, ask.path, json=deviation.body(server.model), timeout=60)
    shown(judge, "deviation", deviation.changes(answer.status_code, answer.text), deviation.source)
