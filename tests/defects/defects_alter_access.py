"""Alterations of who may ask, what is refused, and what the server says of itself."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import web
from defects_altering import COMPLETE, LONG, Asks, alteration
from defects_proxy import Alteration


@alteration("no-key-needed")
class NoKeyNeeded(Alteration):
    def sends(self, headers: dict[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        return {**kept, "Authorization": f"Bearer {self.key}"}


@alteration("any-key-fits")
class AnyKeyFits(Alteration):
    def sends(self, headers: dict[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        return {**kept, "Authorization": f"Bearer {self.key}"} if kept != headers else headers


@alteration("one-route-open")
class OneRouteOpen(Alteration):
    async def answers(self, request: web.Request, body: Any) -> web.StreamResponse | None:
        if request.path == "/v1/models" and "Authorization" not in request.headers:
            return web.json_response({"object": "list", "data": []})
        return None


@alteration("dev-mode")
class DevMode(Alteration):
    """VLLM_SERVER_DEV_MODE=1."""

    async def answers(self, request: web.Request, body: Any) -> web.StreamResponse | None:
        if request.path == "/server_info":
            return web.json_response({"vllm_config": "model='x'"})
        return None

    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        if path == "/openapi.json":
            said["paths"]["/server_info"] = {"get": {}}
            said["paths"]["/sleep"] = {"post": {}}
        return status, said


@alteration("new-open-route")
class NewOpenRoute(Alteration):
    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        if path == "/openapi.json":
            said["paths"]["/backdoor"] = {"post": {}}
        return status, said


@alteration("bad-input-is-500")
class BadInputIs500(Alteration):
    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        refused = path in COMPLETE and 400 <= status < 500 and status != 401
        return (500 if refused else status), said


@alteration("bad-input-hangs")
class BadInputHangs(Alteration):
    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        prompt = (asked or {}).get("prompt") if isinstance(asked, dict) else None
        if path in COMPLETE and status == 400 and isinstance(prompt, list) and len(prompt) > LONG:
            await asyncio.sleep(4)
        return status, said


@alteration("overlong-is-cut")
class OverlongIsCut(Asks):
    """A prompt that is too long is served all the same, without its end."""

    limit = 2048

    def change(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) >= self.limit:
            body["prompt"] = prompt[: self.limit - 1]
        return body


@alteration("health-says-200-always")
class HealthSays200Always(Alteration):
    """The engine is dead, and only requests that generate are told."""

    async def answers(self, request: web.Request, body: Any) -> web.StreamResponse | None:
        if request.path in COMPLETE:
            error = {"message": "EngineCore encountered an issue.", "type": "EngineDeadError"}
            return web.json_response({"error": {**error, "code": 500}}, status=500)
        return None


@alteration("model-under-another-name")
class ModelUnderAnotherName(Alteration):
    async def says(self, path: str, asked: Any, status: int, said: Any) -> tuple[int, Any]:
        if path in COMPLETE and isinstance(said, dict) and "model" in said:
            said["model"] = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
        return status, said


@alteration("metric-renamed")
class MetricRenamed(Alteration):
    async def answers(self, request: web.Request, body: Any) -> web.StreamResponse | None:
        if request.path != "/metrics":
            return None
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.upstream}/metrics") as answer,
        ):
            text = (await answer.text()).replace("kv_cache_usage_perc", "gpu_cache_usage_perc")
        return web.Response(text=text)
