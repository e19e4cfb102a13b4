"""Requests of the correctness checks: one, or several at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import httpx

CONCURRENT = 8
Item = TypeVar("Item")
Made = TypeVar("Made")


def ask(
    http: httpx.Client,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON object that a POST is answered with. Raises ObservationError for anything else."""
    answer = http.post(path, json=dict(body), headers=dict(headers or {}))
    if answer.status_code != 200:
        raise ObservationError(
            f"{path} answered {answer.status_code}: {answer.text[:200]}", asked=f"POST {path}"
        )
    try:
        return dict(answer.json())
    except (ValueError, TypeError) as error:
        raise ObservationError(
            f"{path} answered 200 without a JSON object: {answer.text[:200]}", asked=f"POST {path}"
        ) from error


def choice(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The one choice of an answer. Raises ObservationError for none or several."""
    choices = said.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise ObservationError(f"{name}: not one choice came back, but {choices!r}"[:300])
    return dict(choices[0])


def each(
    one: Callable[[Item], Made], items: Iterable[Item], concurrent: int = CONCURRENT
) -> list[Made]:
    """one() of every item, `concurrent` at a time, in the order of the items. Raises the first
    error; what has not begun then never does."""
    pool = ThreadPoolExecutor(max(1, concurrent))
    try:
        return list(pool.map(one, items))
    finally:  # a test that fails, or is interrupted, does not wait for requests that hang
        pool.shutdown(wait=False, cancel_futures=True)
