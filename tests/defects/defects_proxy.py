"""A proxy between the suite and a healthy server, that alters one thing: what is asked, what is
said, the events of a stream, or its bytes. What an alteration leaves alone passes unchanged."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator

HOP = frozenset({"transfer-encoding", "content-length", "connection", "content-encoding", "date"})
LARGEST = 64 * 2**20  # bytes of a body
DONE = "[DONE]"


class Alteration:
    """Nothing is altered; what is, overrides a method. One object lives as long as a run, so it may
    count and remember."""

    upstream = ""
    key = ""

    async def answers(self, request: web.Request, body: Any) -> web.StreamResponse | None:
        """An answer of its own, instead of the server's."""
        return None

    async def asks(self, session: aiohttp.ClientSession, path: str, body: Any) -> Any:
        """What the server is asked instead of this body."""
        return body

    def sends(self, headers: dict[str, str]) -> dict[str, str]:
        return headers

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        """Status and JSON of an answer that is not streamed."""
        return status, said

    def events(self, path: str, asked: Any, events: list[Any]) -> list[Any]:
        """Events of a stream: decoded JSON, or text such as [DONE]."""
        return events

    def wire(self, data: bytes) -> bytes:
        """The bytes of a stream."""
        return data


class Proxy:
    """Proxies on ports of their own, all in one thread."""

    def __init__(self, upstream: str, key: str) -> None:
        self.upstream, self.key = upstream.rstrip("/"), key
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @contextmanager
    def altering(self, alteration: Alteration) -> Iterator[str]:
        """The address of a proxy for as long as the block lasts."""
        alteration.upstream, alteration.key = self.upstream, self.key
        runner, url = self._do(_serve(alteration))
        try:
            yield url
        finally:
            self._do(runner.cleanup())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(60)


async def _serve(alteration: Alteration) -> tuple[web.AppRunner, str]:
    timeout = aiohttp.ClientTimeout(total=None)
    # A connection that is kept may be closed by the server just when it is used again.
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    session = aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=True)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _pass(alteration, session, request)

    app = web.Application(client_max_size=LARGEST)
    app.router.add_route("*", "/{path:.*}", handle)

    async def close(_: web.Application) -> None:
        await session.close()

    app.on_cleanup.append(close)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    return runner, f"http://127.0.0.1:{port}"


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


async def _pass(
    alteration: Alteration, session: aiohttp.ClientSession, request: web.Request
) -> web.StreamResponse:
    raw, path = await request.read(), request.path
    asked = _json(raw)
    own = await alteration.answers(request, asked)
    if own is not None:
        return own
    if isinstance(asked, dict):
        changed = await alteration.asks(session, path, json.loads(raw))
        if changed != asked:
            raw = json.dumps(changed).encode()
    sent = {k: v for k, v in request.headers.items() if k.lower() not in (*HOP, "host")}
    sent = alteration.sends(sent)
    url = alteration.upstream + str(request.rel_url)
    async with session.request(request.method, url, headers=sent, data=raw) as answer:
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
        data = await answer.read()
        if answer.content_type == "text/event-stream":
            return await _stream(alteration, request, asked, kept, data)
        status, body = answer.status, data
        if answer.content_type == "application/json":
            said = _json(data)
            status, changed = await alteration.says(path, asked, status, json.loads(data))
            if changed != said or status != answer.status:
                body = json.dumps(changed).encode()
    return web.Response(status=status, body=body, headers=kept)


async def _stream(
    alteration: Alteration, request: web.Request, asked: Any, headers: dict[str, str], data: bytes
) -> web.StreamResponse:
    texts = [part.removeprefix(b"data: ") for part in data.split(b"\n\n") if part]
    events = [text.decode() if (found := _json(text)) is None else found for text in texts]
    changed = alteration.events(request.path, asked, [_copy(event) for event in events])
    if changed != events:
        told = (e if isinstance(e, str) else json.dumps(e, ensure_ascii=False) for e in changed)
        data = b"".join(f"data: {text}\n\n".encode() for text in told)
    response = web.StreamResponse(status=200, headers=headers)
    await response.prepare(request)
    await response.write(alteration.wire(data))
    await response.write_eof()
    return response


def _copy(event: Any) -> Any:
    return event if isinstance(event, str) else json.loads(json.dumps(event))
