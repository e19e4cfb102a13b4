"""The other APIs of the same server: do they answer, and do they count alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.correctness.asking import ask
from acceptance.deployments.schema import Lane
from fixtures.judging import not_applicable
from suites.checklist import check

if TYPE_CHECKING:
    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck

QUESTION, TOKENS = "Say harbour and nothing else.", 8


def _needs_them(deployment: Deployment) -> None:
    if deployment.lane is Lane.SIMULATED:
        not_applicable("the simulation has no such route")


@check(87)
def test_responses_answers(
    server: Server, deployment: Deployment, bulk: httpx.Client, record_check: RecordCheck
) -> None:
    """/v1/responses answers, with the tokens that were asked for and no more.

    Does not prove its streams and tools. Would have caught a route that is listed and fails.
    """
    _needs_them(deployment)
    body = {
        "model": server.model,
        "input": QUESTION,
        "max_output_tokens": TOKENS,
        "temperature": 0,
    }
    said = ask(bulk, "/v1/responses", body)
    usage = said.get("usage") or {}
    seen = {
        "object": said.get("object"),
        "status": said.get("status") in ("completed", "incomplete"),
        "counted": usage.get("input_tokens", 0) > 0 and 0 < usage.get("output_tokens", 0) <= TOKENS,
    }
    expected = {"object": "response", "status": True, "counted": True}
    record_check(expected, seen, usage=usage)
    assert seen == expected


@check(87)
def test_messages_counts_as_it_says(
    server: Server, deployment: Deployment, bulk: httpx.Client, record_check: RecordCheck
) -> None:
    """/v1/messages answers, and counts the prompt as /v1/messages/count_tokens does and as chat
    does.

    Does not prove its streams and tools. Would have caught a bill for other tokens than were
    announced.
    """
    _needs_them(deployment)
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": server.model, "messages": messages}
    said = ask(bulk, "/v1/messages", {**body, "max_tokens": TOKENS})
    counted = ask(bulk, "/v1/messages/count_tokens", body)
    chat = ask(bulk, "/v1/chat/completions", {**body, "max_tokens": 1})
    asked = chat["usage"]["prompt_tokens"]
    seen = {
        "type": said.get("type"),
        "messages": (said.get("usage") or {}).get("input_tokens"),
        "count_tokens": counted.get("input_tokens"),
    }
    expected = {"type": "message", "messages": asked, "count_tokens": asked}
    record_check(expected, seen)
    assert seen == expected
