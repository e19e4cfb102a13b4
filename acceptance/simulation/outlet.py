"""Sends a stream's events the moment they are due."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web


class Outlet:
    """The first event goes through the web framework, with the headers; later ones straight to the
    connection, framed as HTTP/1.1 chunks: waking a task for each of 512 tokens a step would make
    the server late, and it is the clients that are to be measured."""

    def __init__(self, request: web.Request) -> None:
        self._transport = request.transport
        self._pending: list[bytes] = []
        self._direct = False
        self._begun = asyncio.Event()
        self._ended = asyncio.Event()

    def put(self, event: bytes) -> None:
        """Sends, or keeps it until the headers are out."""
        if self._direct:
            assert self._transport is not None
            if not self._transport.is_closing():
                self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        else:
            self._pending.append(event)
            self._begun.set()

    def end(self) -> None:
        """No event is to come."""
        self._begun.set()
        self._ended.set()

    async def drain(self, response: web.StreamResponse, last: Iterable[bytes]) -> None:
        """Sends from the first event to the last ones. Returns when all is handed over."""
        await self._begun.wait()
        while self._pending:
            events, self._pending = self._pending, []
            await response.write(b"".join(events))
        self._direct = True
        await self._ended.wait()
        await response.write(b"".join(last))
        await response.write_eof()
