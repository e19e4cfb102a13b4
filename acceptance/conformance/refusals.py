"""How a request that cannot be served must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acceptance.conformance.limits import limits

if TYPE_CHECKING:
    import httpx

QUICK = limits()["refusal"]


@dataclass(frozen=True)
class Refusal:
    """A request to be refused. statuses: those that are right. plain: vLLM 0.32 answers this one
    in its web framework's own form, {"detail": text}, not in OpenAI's."""

    name: str
    kind: str = "chat"
    changes: dict[str, Any] | None = None
    raw: bytes | None = None
    content_type: str = "application/json"
    statuses: tuple[int, ...] = (400, 422)
    plain: bool = False


def refusal_problems(answer: httpx.Response, asked: Refusal, within: float) -> list[str]:
    """Status, quickness (seconds, from request to the whole answer), and a JSON error that says
    something and carries the status as its code."""
    problems = []
    if answer.status_code not in asked.statuses:
        problems.append(f"HTTP {answer.status_code}, not {' or '.join(map(str, asked.statuses))}")
    seconds = answer.elapsed.total_seconds()
    if seconds > within:
        problems.append(f"took {seconds:.1f} s, more than {within:g} s")
    return problems + _body_problems(answer, asked.plain)


def _body_problems(answer: httpx.Response, plain: bool) -> list[str]:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return [f"content type is {answer.headers.get('content-type')!r}: {answer.text[:200]!r}"]
    try:
        body = answer.json()
    except ValueError:
        return [f"no JSON: {answer.text[:200]!r}"]
    if plain and isinstance(body, dict) and isinstance(body.get("detail"), str):
        return []
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return [f"no error object: {answer.text[:200]!r}"]
    problems = []
    if not isinstance(error.get("message"), str) or not error["message"].strip():
        problems.append("the error says nothing")
    if error.get("code") != answer.status_code:
        problems.append(f"the error's code is {error.get('code')!r}, not {answer.status_code}")
    return problems
