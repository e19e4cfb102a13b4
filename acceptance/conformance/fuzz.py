"""Requests made from a server's own openapi.json by schemathesis, the same for the same seed."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

# What changes the server for everybody, or is nobody's to call.
LEFT_OUT = ("/scale_elastic_ep", "/v1/responses/{response_id}/cancel")
TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MOST_TOKENS, MOST_CHOICES = 2, 2


@dataclass
class Fuzzed:
    """statuses: how often each came. errors: operation, status and text of each 5xx. silent:
    operations that did not answer in time. left: operations that the time did not suffice for."""

    statuses: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """That were answered."""
        return sum(self.statuses.values())


def fuzz(
    openapi: dict[str, Any],
    client: httpx.Client,
    model: str,
    *,
    seed: int,
    examples: int,
    seconds: float,
    timeout: float,
) -> Fuzzed:
    """examples requests of each operation, tamed so that each costs little. seconds: for all, from
    the first on; timeout: for one. Raises ImportError without schemathesis."""
    import hypothesis
    import schemathesis

    found, clock = Fuzzed(), _Clock(seconds)
    # Its numbers are drawn anew for each operation, so that one more route changes no other's.
    settings = hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    given: Any = hypothesis.given
    schema = schemathesis.openapi.from_dict(openapi)
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in LEFT_OUT:
            continue
        name = f"{operation.method.upper()} {operation.path}"
        if clock.over:  # making requests takes time as well
            found.left.append(name)
            continue
        run = given(operation.as_strategy())(_sender(client, model, timeout, name, found, clock))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seeded: Callable[[], None] = hypothesis.seed(seed)(settings(run))
            seeded()
    return found


class _Clock:
    """Runs from the first request: what makes requests takes seconds to begin, on a busy machine
    longer than all of them may take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit: float | None = None

    def start(self) -> None:
        if self._limit is None:
            self._limit = time.monotonic() + self._seconds

    @property
    def over(self) -> bool:
        return self._limit is not None and time.monotonic() > self._limit


def _sender(
    client: httpx.Client, model: str, timeout: float, name: str, found: Fuzzed, clock: _Clock
) -> Callable[[Any], None]:
    def one(case: Any) -> None:
        clock.start()
        if not clock.over:
            _send(case, client, model, timeout, name, found)
        elif name not in found.left:
            found.left.append(name)

    return one


def _send(
    case: Any, client: httpx.Client, model: str, timeout: float, name: str, found: Fuzzed
) -> None:
    body = tame(case.body, model) if isinstance(case.body, dict) else None
    path = case.formatted_path
    query = {k: v for k, v in dict(case.query or {}).items() if isinstance(v, str | int | float)}
    try:
        answer = client.request(
            case.method.upper(), path, json=body, params=query or None, timeout=timeout
        )
    except (httpx.TimeoutException, httpx.RemoteProtocolError) as error:
        found.silent.append(f"{name}: {type(error).__name__}")
        return
    except (httpx.InvalidURL, ValueError):  # what no client can send tells nothing of the server
        return
    found.statuses[answer.status_code] = found.statuses.get(answer.status_code, 0) + 1
    if answer.status_code >= 500:
        found.errors.append(f"{name}: {answer.status_code} {answer.text[:160]}")


def tame(body: dict[str, Any], model: str) -> dict[str, Any]:
    """The same request for the served model, with few tokens and choices."""
    tamed = {**body, "model": model} if "model" in body else dict(body)
    for name in TOKENS:
        if isinstance(tamed.get(name), int):
            tamed[name] = min(tamed[name], MOST_TOKENS)
    if not any(tamed.get(name) for name in TOKENS):
        tamed["max_tokens"] = MOST_TOKENS
    if isinstance(tamed.get("n"), int):
        tamed["n"] = min(tamed["n"], MOST_CHOICES)
    for name in ("min_tokens", "best_of", "use_beam_search", "ignore_eos"):
        tamed.pop(name, None)
    return tamed
