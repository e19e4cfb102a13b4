"""When a request came, by the connection that it came on: not when this process had read it.

Reading a request takes the one process that plays all of vLLM a millisecond, and writing it takes a
client that shares the cores as long. Neither is any part of what the latency model computes, so the
schedule counts from the moment at which the client turned to the server.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import asyncio

# Seconds from a connection to its first bytes that are taken for the writing of a request. One that
# is older was opened ahead of it.
WRITING = 0.25


class Unread:
    """The new connections whose request has not been read yet, the oldest first."""

    def __init__(self) -> None:
        self._opened: dict[Connection, float] = {}

    def add(self, connection: Connection, opened: float) -> None:
        self._opened[connection] = opened

    def remove(self, connection: Connection) -> None:
        self._opened.pop(connection, None)

    def first(self) -> float | None:
        """When the oldest was made of which the request may still count from then; None for no
        such. Seconds of time.monotonic()."""
        oldest = time.monotonic() - WRITING
        while self._opened:
            connection, opened = next(iter(self._opened.items()))
            if opened >= oldest:
                return opened
            del self._opened[connection]
        return None


class Connection(web.RequestHandler):
    """A client's connection. came: when its request came, seconds of time.monotonic(): with the
    connection for the first one, with their first bytes for those that follow; None between two."""

    __slots__ = ("_opened", "_unread", "came")

    def __init__(
        self, server: web.Server, unread: Unread, *, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(server, loop=loop)
        self._unread = unread
        self._opened: float | None = None
        self.came: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened = time.monotonic()
        self._unread.add(self, self._opened)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._unread.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.came is None:
            self.came = began(self._opened, time.monotonic())
            self._opened = None
        super().data_received(data)

    def taken(self) -> float | None:
        """When its request came; the next one comes anew."""
        self._unread.remove(self)
        came, self.came = self.came, None
        return came


def began(opened: float | None, bytes_came: float) -> float:
    """When a request began to come, of which the first bytes are here. opened: when its connection
    was made; None for one that has served before."""
    if opened is None or bytes_came - opened > WRITING:
        return bytes_came
    return opened


def take(request: web.Request) -> float:
    """When this request came, seconds of time.monotonic(); now, where nobody noted it."""
    connection = request.protocol
    came = connection.taken() if isinstance(connection, Connection) else None
    return time.monotonic() if came is None else came
