"""HTTP to a server: straight to one on this host, and cheap enough to poll with."""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

import httpx

from acceptance.serving.addresses import several_of

if TYPE_CHECKING:
    import ssl

    from acceptance.serving.metrics import Endpoint

# Seconds that an unused connection is kept. vLLM's web server closes it after 5, which is httpx's
# own default too: a request that is sent at that moment is reset, and looks like a server's fault.
UNUSED = 1.0
# Of a request that may bring an error: vLLM's web server closes the connection after the answer to
# one that raised (0.25.1 on an H200), and what came next on it would be reset.
LAST = {"Connection": "close"}


def kept(connections: int = 100) -> httpx.Limits:
    """So many connections at once, all kept while they are unused for a moment: of those beyond a
    lower number httpcore 1.0.9 closes some that it has just given to another thread, whose request
    then fails or hangs (httpcore#1110; "Bad file descriptor" on an H200)."""
    return httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=UNUSED
    )


def client(
    server: Endpoint,
    timeout: float,
    key: str | None = None,
    limits: httpx.Limits | None = None,
    *,
    at: str = "",
) -> httpx.Client:
    """A client for paths of this server. timeout: seconds. key: instead of the server's own, ""
    for none. at: the one of the server's addresses to stay at; without it each request goes to the
    next. A proxy that the environment names is not asked for a server on this host."""
    made = httpx.Client(
        base_url=at or server.base_url,
        headers=headers(server) if key is None else _bearer(key),
        timeout=timeout,
        limits=limits or kept(),
        verify=certificates(),
        trust_env=not on_this_host(at or server.base_url),
    )
    if not at and (several := several_of(server)) is not None:
        made.event_hooks = {"request": [several.take_turn]}
    return made


def headers(server: Endpoint) -> dict[str, str]:
    """Authorisation for this server; empty for one without a key."""
    return _bearer(server.api_key)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@functools.cache
def certificates() -> ssl.SSLContext:
    """Read once: httpx does it for every client, in 35 ms, whether they are used or not."""
    return httpx.create_ssl_context()


def on_this_host(url: str) -> bool:
    """Whether the URL names this host's loopback."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
