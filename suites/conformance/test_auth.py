"""Who may ask: the key, what answers without it, and who may reach the port at all."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import psutil

from acceptance.conformance.bodies import chat
from acceptance.conformance.routes import RISKY_OPEN, routes, unknown_open, valid_bodies
from acceptance.serving.generation import headers
from fixtures.judging import not_applicable, unobservable
from suites.checklist import check
from suites.conformance.holding import shown, specified

if TYPE_CHECKING:
    import httpx

    from acceptance.conformance.routes import Route
    from acceptance.serving.server import Server
    from fixtures.judging import Judge, RecordCheck

WRONG = {"Authorization": "Bearer not-the-key"}
CLOSED = (401, 403, 404, 405)  # what a route says that does not let anybody in
ELSEWHERE = "https://elsewhere.example"  # an origin that no deployment names


@check(9)
def test_no_key_is_refused(
    server: Server, keyless: httpx.Client, record_check: RecordCheck
) -> None:
    """Every guarded route of the live openapi.json answers 401 to a request without a key.

    Does not prove that routes outside the guard are harmless (see test_open_routes_are_known).
    Would have caught a launch that lost VLLM_API_KEY.
    """
    specified(record_check, _let_in(_guarded(server, keyless), keyless, {}))


@check(9)
def test_a_wrong_key_is_refused(
    server: Server, keyless: httpx.Client, record_check: RecordCheck
) -> None:
    """Every guarded route of the live openapi.json answers 401 to a request with a wrong key.

    Does not prove that the key is compared in constant time. Would have caught a proxy that only
    looks whether there is a key.
    """
    specified(record_check, _let_in(_guarded(server, keyless), keyless, WRONG))


@check(9)
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
        elif answer.status_code == 401 or (answer.status_code == 403 and not _off(answer)):
            problems.append(f"{route}: {answer.status_code}")
    specified(record_check, problems)


@check(10)
def test_open_routes_are_known(keyless: httpx.Client, record_check: RecordCheck) -> None:
    """Routes outside the guard are those that vLLM 0.32 is known to leave there.

    Does not prove them harmless (see test_open_routes_are_accepted). Would have caught a new
    version or a flag that opens another way around the key.
    """
    found = routes(keyless.get("/openapi.json").json())
    specified(record_check, [f"{path} asks for no key" for path in unknown_open(found)])


@check(10)
def test_open_routes_are_accepted(
    server: Server, keyless: httpx.Client, record_check: RecordCheck
) -> None:
    """A route that generates or changes the server without the key is closed, or the deployment
    accepts it by name and says why.

    Does not prove that the proxy it counts on is there. Would have caught /invocations, which
    answers a chat completion to anybody in vLLM 0.32, whatever --api-key says.
    """
    if not server.api_key:
        not_applicable("the server was attached to without a key")
    accepted = server.deployment.accepted.open_routes
    found = {r.path: r for r in routes(keyless.get("/openapi.json").json()) if r.method == "post"}
    bodies = {"/invocations": chat(server.model, max_tokens=1)}
    open_, problems = {}, []
    for path in RISKY_OPEN:
        if path in found:
            answer = _ask(found[path], keyless, {}, bodies.get(path, {}), 60)
            open_[path] = answer.status_code
            if answer.status_code not in CLOSED and path not in accepted:
                problems.append(f"{path} answers {answer.status_code} without the key")
    record_check(
        expected="closed, or accepted by name",
        actual="; ".join(problems) or "as specified",
        answers=open_,
        accepted=dict(accepted),
    )
    assert not problems, "; ".join(problems)


@check(12)
def test_foreign_origins_are_not_trusted(keyless: httpx.Client, record_check: RecordCheck) -> None:
    """A browser's preflight from another origin is answered, and never with leave to send
    credentials: no deployment configures origins.

    Does not prove what a proxy adds. Would have caught --allow-credentials together with any
    origin, with which every web page could use a visitor's key.
    """
    asked = {
        "Origin": ELSEWHERE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = keyless.options("/v1/chat/completions", headers=asked)
    problems = [f"HTTP {answer.status_code}"] if answer.status_code >= 500 else []
    if answer.headers.get("access-control-allow-credentials", "").lower() == "true":
        allowed = answer.headers.get("access-control-allow-origin")
        problems.append(f"credentials may be sent from {allowed}")
    specified(record_check, problems)


def test_listens_on_loopback(server: Server, record_check: RecordCheck) -> None:
    """The socket that answers the API is bound to loopback: nobody else reaches a server under
    test.

    Does not prove it of the deployment's production command. Would have caught vLLM's own default,
    every interface, with routes behind it that ask for no key.
    """
    port = int(server.base_url.rpartition(":")[2])
    found = sorted(address for address, bound in _listening(server) if bound == port)
    problems = [f"bound to {address}" for address in found if not _is_loopback(address)]
    problems += [] if found else [f"nothing of the server's listens on port {port}"]
    specified(record_check, problems)


def test_other_sockets(server: Server, judge: Judge) -> None:
    """Shows which other sockets of the server listen beyond loopback.

    Does not prove what they answer. Would have caught the ports between ranks, which ask for no key
    and unpickle what they are sent.
    """
    port = int(server.base_url.rpartition(":")[2])
    beyond = sorted(
        {f"{a}:{p}" for a, p in _listening(server) if p != port and not _is_loopback(a)}
    )
    problems = [f"{socket} listens" for socket in beyond]
    shown(judge, "sockets_beyond_loopback", problems, "a server under test is for this host alone")


def _listening(server: Server) -> list[tuple[str, int]]:
    if server.attached:
        unobservable("processes", "whose sockets are whose is not told of an attached server")
    pids, found = set(server.pids()), []
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.Error:  # it ended, or is not ours to look at
            continue
        found += [(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN]
    return found


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def _guarded(server: Server, client: httpx.Client) -> list[Route]:
    if not server.api_key:
        not_applicable("the server was attached to without a key")
    found = [r for r in routes(client.get("/openapi.json").json()) if r.guarded]
    assert found, "openapi.json lists no guarded route"
    return found


def _off(answer: httpx.Response) -> bool:
    """Whether a 403 says that the route needs a flag, as vLLM 0.32's scale-out routes do."""
    return "--enable-scale-out" in answer.text


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
