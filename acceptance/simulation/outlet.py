"""Sends a stream's events the moment they are due."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web


class Outlet:
    """Events go straight to the connection, framed as HTTP/1.1 chunks: waking a task for each of
    512 tokens a step would make the server late, and it is the clients that are to be measured.
    The headers must be out before the first, as vLLM's are before there is a token."""

    def __init__(self, request: web.Request) -> None:
        self._transport = request.transport
        self._ended = asyncio.Event()

    def put(self, event: bytes) -> None:
        """Sends."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))

    def end(self) -> None:
        """No event is to come."""
        self._ended.set()

    async def drain(self, response: web.StreamResponse, last: Iterable[bytes]) -> None:
        """Sends the last events once no other is to come. Returns when all is handed over."""
        await self._ended.wait()
        await response.write(b"".join(last))
        await response.write_eof()
