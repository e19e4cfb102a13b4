"""A deployment that is reached at several addresses: vLLM's hybrid and external load balancing give
each node, or each rank, an API server and /metrics of its own."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Protocol

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Addressed(Protocol):
    """Anything with an address."""

    @property
    def base_url(self) -> str: ...


class Addresses:
    """bases: where requests go, in turn. metrics: where /metrics is read, each address once; the
    bases themselves where nothing else is named. All as normal() gives them."""

    def __init__(self, bases: Sequence[str], metrics: Sequence[str] = ()) -> None:
        self.bases = tuple(bases)
        self.metrics = tuple(metrics) or self.bases
        self._turn = itertools.cycle(self.bases)
        self._lock = threading.Lock()  # clients of several threads take turns together

    def next(self) -> str:
        """Whose turn it is."""
        with self._lock:
            return next(self._turn)

    def take_turn(self, request: httpx.Request) -> None:
        """An httpx hook: a request to the first address goes to the one whose turn it is. One for
        /metrics is no part of the load, and stays."""
        path = str(request.url).removeprefix(self.bases[0])
        if path != str(request.url) and path != "/metrics":
            # Of the request's own kind: OpenAI's client brings another httpx with it.
            request.url = type(request.url)(self.next() + path)
            request.headers["Host"] = request.url.netloc.decode("ascii")


def normal(url: str) -> str:
    """An address in the one form in which it is compared: without /v1 or /metrics at its end, which
    people copy along. Raises ValueError for what is no HTTP address."""
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query:
        raise ValueError("no address such as http://127.0.0.1:8000")
    text = str(parsed).rstrip("/")
    return text.removesuffix("/metrics").removesuffix("/v1").rstrip("/")


def several_of(server: Addressed) -> Addresses | None:
    """The addresses of a server that has more than one; None for most servers, and for whatever
    stands for one and knows of a single address only."""
    found: Addresses | None = getattr(server, "several", None)
    return found


def bases_of(server: Addressed) -> tuple[str, ...]:
    """Every address that requests may be sent to; the first is base_url."""
    several = several_of(server)
    return several.bases if several is not None else (server.base_url,)


def metrics_of(server: Addressed) -> tuple[str, ...]:
    """Every address whose /metrics counts for this server."""
    several = several_of(server)
    return several.metrics if several is not None else (server.base_url,)


def in_turn(server: Addressed) -> Iterator[str]:
    """Addresses for requests that are sent without client(), without end."""
    several = several_of(server)
    while True:
        yield several.next() if several is not None else server.base_url


def short(url: str) -> str:
    """An address as it is told beside a number: 10.0.0.1:8000."""
    return url.partition("://")[2]
