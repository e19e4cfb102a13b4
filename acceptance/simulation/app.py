"""Routes of the simulated server."""

from __future__ import annotations

import asyncio
import hmac
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from acceptance.simulation import answers
from acceptance.simulation.arrivals import take
from acceptance.simulation.bodies import (
    Chat,
    Completion,
    Refused,
    read_asked,
    read_json,
)
from acceptance.simulation.language import decode, name
from acceptance.simulation.outlet import Outlet
from acceptance.simulation.pump import Lateness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from acceptance.simulation.service import Live, Service

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST = 64 * 2**20  # bytes of a request's body
GUARDED = "/v1"
KINDS: dict[str, type[Completion] | type[Chat]] = {
    "/v1/completions": Completion,
    "/v1/chat/completions": Chat,
}
DONE = b"data: [DONE]\n\n"
_compact = partial(json.dumps, separators=answers.COMPACT)


class Routes:
    """The handlers. key: asked for under /v1; empty for none."""

    def __init__(self, service: Service, key: str) -> None:
        self.service = service
        self.key = "" if service.faults.open else key
        self.busy = 0  # requests in flight

    def application(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST, middlewares=[self._around])
        gets = {
            "/health": self._health,
            "/ping": self._health,
            "/version": self._version,
            "/metrics": self._metrics,
            "/load": self._load,
            "/v1/models": self._models,
        }
        posts = {
            **dict.fromkeys(KINDS, self._complete),
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
        }
        listed: dict[str, Any] = {path: {"get": {}} for path in gets} | {
            path: {"post": {}} for path in posts
        }
        self._openapi = {
            "openapi": "3.1.0",
            "info": {"title": "simulated vLLM", "version": self.service.version},
            "paths": listed,
        }
        app.add_routes([web.get(path, handler) for path, handler in gets.items()])
        app.add_routes([web.post(path, handler) for path, handler in posts.items()])
        app.add_routes([web.get("/openapi.json", self._describe)])
        # Of the simulation alone, so it is not in openapi.json, which is vLLM's.
        app.add_routes([web.get("/simulation/truth", self._truth)])
        app.add_routes([web.delete("/simulation/truth", self._forget)])
        return app

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(GUARDED) and self.key and not self._let_in(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except Refused as refused:
            return web.json_response(refused.body, status=refused.status)
        except web.HTTPException as error:
            return web.json_response({"detail": error.reason}, status=error.status)
        finally:
            take(request)

    def _let_in(self, request: web.Request) -> bool:
        sent = request.headers.get("Authorization", "")
        return hmac.compare_digest(sent.encode(), f"Bearer {self.key}".encode())

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.service.version})

    async def _load(self, _: web.Request) -> web.Response:
        return web.json_response({"server_load": 0})

    async def _describe(self, _: web.Request) -> web.Response:
        return web.json_response(self._openapi)

    async def _metrics(self, _: web.Request) -> web.Response:
        service = self.service
        gauges, info = service.gauges(), service.cache_config()
        text = service.metrics.text(gauges, info, service.faults.lost_metrics)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def _models(self, _: web.Request) -> web.Response:
        settings = self.service.settings
        card = {
            "id": settings.served,
            "object": "model",
            "owned_by": "vllm",
            "root": settings.model,
            "max_model_len": settings.max_model_len,
        }
        return web.json_response({"object": "list", "data": [card]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        data = read_json(await request.read(), request.headers.get("Content-Type", ""))
        limit, served = self.service.settings.max_model_len, self.service.settings.served
        kind: type[Completion] | type[Chat] = Chat if "messages" in data else Completion
        tokens = read_asked(kind, data, served, limit).prompts()[0]
        said = {"count": len(tokens), "max_model_len": limit, "tokens": tokens}
        if data.get("return_token_strs"):
            said["token_strs"] = [name(token) for token in tokens]
        return web.json_response(said, dumps=_compact)

    async def _detokenize(self, request: web.Request) -> web.Response:
        data = read_json(await request.read(), request.headers.get("Content-Type", ""))
        return web.json_response({"prompt": decode(data.get("tokens", []))})

    async def _truth(self, request: web.Request) -> web.Response:
        service = self.service
        settings, late = service.settings, service.pump.lateness
        said: dict[str, Any] = {
            "length_scale": settings.length_scale,
            "time_scale": settings.time_scale,
            "steps": late.steps,
            "late_worst": late.worst,
            "late_mean": late.mean,
            "requests": list(service.truth),
        }
        return web.json_response(said, dumps=_compact)

    async def _forget(self, _: web.Request) -> web.Response:
        self.service.truth.clear()
        self.service.pump.lateness = Lateness()
        return web.Response()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        came = take(request)
        data = read_json(raw, request.headers.get("Content-Type", ""))
        settings = self.service.settings
        body = read_asked(KINDS[request.path], data, settings.served, settings.max_model_len)
        live = self.service.admit(body, came)
        self.busy += 1
        try:
            if body.stream:
                return await self._stream(request, live)
            return await self._whole(live)
        except (asyncio.CancelledError, ConnectionError):
            self.service.abort(live)
            raise
        finally:
            self.busy -= 1

    async def _whole(self, live: Live) -> web.Response:
        finished = asyncio.Event()
        left = [max(1, len(made.tokens)) for made in live.made]

        def emit(index: int, number: int) -> None:
            left[index] -= 1
            if not any(left):
                finished.set()

        self.service.queue(live, emit)
        await finished.wait()
        said = answers.whole(live.body, live.head, live.made, live.prompts)
        return web.json_response(said, dumps=_compact)

    async def _stream(self, request: web.Request, live: Live) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        response.enable_chunked_encoding()
        writer = await response.prepare(request)
        assert writer is not None
        writer.send_headers()
        chunks = answers.Chunks(live.body, live.head, len(live.made))
        outlet = Outlet(request)
        last = [DONE]
        if live.body.usage_in_stream:
            last.insert(0, chunks.usage(answers.usage(live.made, live.prompts)))
        self.service.queue(live, self._emitter(live, chunks, outlet, last))
        await outlet.drain(response, last)
        return response

    def _emitter(
        self, live: Live, chunks: answers.Chunks, outlet: Outlet, last: list[bytes]
    ) -> Callable[[int, int], None]:
        """What sends the tokens of a stream. last: what is sent after them."""
        faults = self.service.faults
        gather = faults.tokens_a_chunk if live.number else 1
        breaks = faults.break_after if live.number else 0
        left, sent, roles = len(live.made), [0] * len(live.made), chunks.roles(len(live.made))

        def emit(index: int, number: int) -> None:
            nonlocal left, roles
            made, begin = live.made[index], sent[index]
            done = number + 1 >= len(made.tokens)
            if left and (done or number + 1 - begin >= gather):
                outlet.put(roles + chunks.tokens(index, made, begin, number + 1))
                roles, sent[index] = b"", number + 1
            if breaks and number + 1 >= breaks and left:
                last[:] = [chunks.error("EngineCore encountered an issue"), DONE]
                left = 0
                outlet.end()
            elif done and left:
                left -= 1
                if not left:
                    outlet.end()

        return emit
