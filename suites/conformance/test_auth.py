"""The key is asked for where vLLM says it is, and nowhere else is anything new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.conformance.routes import routes, unknown_open, valid_bodies
from acceptance.serving.generation import headers
from fixtures.judging import not_applicable
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.conformance.routes import Route
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck

WRONG = {"Authorization": "Bearer not-the-key"}


def test_no_key_is_refused(
    server: Server, keyless: httpx.Client, record_check: RecordCheck
) -> None:
    """Every guarded route of the live openapi.json answers 401 to a request without a key.

    Does not prove that routes outside the guard are harmless (see test_open_routes_are_known).
    Would have caught a launch that lost VLLM_API_KEY.
    """
    specified(record_check, _let_in(_guarded(server, keyless), keyless, {}))


def test_a_wrong_key_is_refused(
    server: Server, keyless: httpx.Client, record_check: RecordCheck
) -> None:
    """Every guarded route of the live openapi.json answers 401 to a request with a wrong key.

    Does not prove that the key is compared in constant time. Would have caught a proxy that only
    looks whether there is a key.
    """
    specified(record_check, _let_in(_guarded(server, keyless), keyless, WRONG))


def test_the_key_is_accepted(
    server: Server, keyless: httpx.Client, record_check: RecordCheck
) -> None:
    """With the key, every guarded route lets a request in: 200 where a right request is known,
    and neither 401 nor 403 elsewhere.

    Does not prove what it answers. Would have caught a guard that is closed for everybody, which
    the two tests above would pass.
    """
    bodies, problems = valid_bodies(server.model), []
    for route in _guarded(server, keyless):
        known = route.path in bodies
        body = bodies.get(route.path, {})
        answer = _ask(route, keyless, headers(server), body, server.deployment.budgets.request)
        if known and answer.status_code != 200:
            problems.append(f"{route}: {answer.status_code} {answer.text[:200]}")
        elif answer.status_code in (401, 403):
            problems.append(f"{route}: {answer.status_code}")
    specified(record_check, problems)


def test_open_routes_are_known(keyless: httpx.Client, record_check: RecordCheck) -> None:
    """Routes outside the guard are those that vLLM 0.32 is known to leave there.

    Does not prove them harmless: /invocations answers a chat completion without a key, and must be
    blocked by whatever stands before the server. Would have caught a new version or a flag that
    opens another way around the key.
    """
    found = routes(keyless.get("/openapi.json").json())
    specified(record_check, [f"{path} asks for no key" for path in unknown_open(found)])


def _guarded(server: Server, client: httpx.Client) -> list[Route]:
    if not server.api_key:
        not_applicable("the server was attached to without a key")
    found = [r for r in routes(client.get("/openapi.json").json()) if r.guarded]
    assert found, "openapi.json lists no guarded route"
    return found


def _let_in(guarded: list[Route], client: httpx.Client, sent: dict[str, str]) -> list[str]:
    answers = {str(r): _ask(r, client, sent, {}, 15).status_code for r in guarded}
    return [f"{name}: {status}, not 401" for name, status in answers.items() if status != 401]


def _ask(
    route: Route, client: httpx.Client, sent: dict[str, str], body: object, timeout: float
) -> httpx.Response:
    content = None if route.method == "get" else body
    return client.request(
        route.method.upper(), route.url, headers=sent, json=content, timeout=timeout
    )
