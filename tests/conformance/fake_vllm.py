"""An honest twin of vLLM 0.32.0's API, small enough to read, with switches that break one thing
each. Its answers were written after those of a real 0.32.0 server."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fake_r1
import fake_refusals
from fake_answers import answer, chunks
from fake_engine import Generated, cap_of, generate
from fake_load import Load, hold
from fake_tokens import encode, render, spelled
from packaging.version import Version

from acceptance.conformance.routes import known_routes

GUARDED = ("/v1", "/v2", "/inference", "/cohere")
OPEN_GETS = ("/health", "/version", "/metrics", "/load")
MODEL = "generated/DeepSeek-R1-in-small"
GETS = (*OPEN_GETS, "/v1/models", "/v1/responses/{response_id}")
POSTS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/messages/count_tokens"),
    *("/v1/responses", "/tokenize", "/detokenize", "/invocations"),
)
ENGINE_METRICS = (
    *("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"),
    *("generation_tokens_total", "prompt_tokens_total", "request_success_total"),
    *("num_preemptions_total", "prefix_cache_queries_total", "prefix_cache_hits_total"),
    *("time_to_first_token_seconds_count", "inter_token_latency_seconds_count"),
    "e2e_request_latency_seconds_count",
)
PROMPT_SCHEMA = {
    "type": "object",
    "properties": {"model": {"type": "string"}, "prompt": {"type": "string", "minLength": 1}},
    "required": ["model", "prompt"],
}
CACHE = {
    "enable_prefix_caching": "False",
    "cache_dtype": "auto",
    "gpu_memory_utilization": "0.92",
    "kv_cache_size_tokens": "310688",
    "kv_cache_memory_bytes": "1073741824",
}


@dataclass
class Twin:
    """What is served. breaks: words, each of which breaks one thing."""

    model: str = MODEL
    key: str = "the-key"
    version: str = "0.32.0"
    fingerprint: str | None = "vllm-0.32.0-tp2-ep-6ec0ee58"
    max_model_len: int = 2048
    engines: list[dict[str, str]] = field(default_factory=lambda: [dict(CACHE)])
    models: list[str] = field(default_factory=list)
    breaks: set[str] = field(default_factory=set)
    refused: int = 0
    asked: int = 0
    load: Load = field(default_factory=Load)
    url: str = ""

    def start(self) -> None:
        twin = self

        class Bound(Handler):
            pass

        Bound.twin = twin
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    twin: Twin

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        twin, path = self.twin, self.path
        if self._locked_out():
            return
        match path:
            case "/health":
                self._send(503 if "health-503" in twin.breaks else 200, b"", "")
            case "/version" if "version-is-a-page" in twin.breaks:
                self._send(200, b"<html></html>", "text/html")
            case "/version":
                self._json(200, {"version": twin.version})
            case "/metrics":
                self._send(200, self._metrics().encode(), "text/plain; version=1.0.0")
            case "/load":
                self._json(200, {"server_load": 3 if "load-stays" in twin.breaks else 0})
            case "/openapi.json":
                self._json(200, self._openapi())
            case "/v1/models":
                names = twin.models or [twin.model]
                length = None if "length-not-told" in twin.breaks else twin.max_model_len
                card = {"object": "model", "root": "tiny", "max_model_len": length}
                self._json(200, {"object": "list", "data": [{"id": n, **card} for n in names]})
            case "/v1/responses/no-such-id":
                self._json(404, {"error": {"message": "no response", "code": 404}})
            case "/server_info" if "admin-route" in twin.breaks:
                self._json(200, {"vllm_config": ""})
            case _:
                self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        try:
            self._post()
        except (ValueError, LookupError, TypeError, AttributeError):
            crashes = "dies-of-odd-input" in self.twin.breaks
            error = {"message": "EngineDeadError" if crashes else "no such request", "code": 400}
            if crashes:
                self.twin.refused += 1
                self.twin.breaks.add("dies-of-bad-input")
            self._json(500 if crashes else 400, {"error": error})

    def _post(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        if self._locked_out():
            return
        if self.path in ("/v1/chat/completions", "/v1/completions"):
            self._complete("chat" if "chat" in self.path else "completion", raw)
        elif self.path == "/tokenize":
            body = json.loads(raw)
            tokens = self._prompt(body, tokenizing=True)
            self._json(200, {"count": len(tokens), "tokens": tokens})
        elif self.path == "/detokenize":
            told = spelled(json.loads(raw)["tokens"])
            self._json(200, {"prompt": told[1:] if "detokenize-cuts" in self.twin.breaks else told})
        elif self.path == "/invocations":
            self._complete("chat", raw)
        elif self.path in POSTS:
            self._other(self.path, json.loads(raw))
        elif "embeddings-500" in self.twin.breaks:
            self._json(500, {"error": {"message": "", "code": 500}})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_OPTIONS(self) -> None:
        trusting = "trusts-everybody" in self.twin.breaks
        self.send_response(200)
        self.send_header("Access-Control-Allow-Credentials", "true" if trusting else "false")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _other(self, path: str, body: dict[str, Any]) -> None:
        if not body.get("model"):
            return self._json(400, {})
        count = 7
        usage = {"input_tokens": count, "output_tokens": 2}
        said = [{"type": "text", "text": "Hello."}]
        told: dict[str, Any] = {"output": said, "usage": usage}
        if "messages" in path:
            told = {"input_tokens": count} if "count" in path else {"content": said, "usage": usage}
        return self._json(200, told)

    def _locked_out(self) -> bool:
        twin = self.twin
        sent = self.headers.get("authorization", "")
        if not self.path.startswith(GUARDED) or "no-auth" in twin.breaks:
            return False
        if sent == f"Bearer {twin.key}" and "deaf" not in twin.breaks:
            return False
        if sent and "any-key" in twin.breaks:
            return False
        if "one-open-route" in twin.breaks and self.path == "/v1/messages":
            return False
        self._json(401, {"error": "Unauthorized"})
        return True

    def _complete(self, kind: str, raw: bytes) -> None:
        twin = self.twin
        if "dies-of-load" in twin.breaks and twin.load.held > 3:
            return self._json(500, {"error": {"message": "EngineDeadError", "code": 500}})
        if twin.refused and "dies-of-bad-input" in twin.breaks:
            return self._json(500, {"error": {"message": "EngineDeadError", "code": 500}})
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            twin.refused += 1
            return self._refuse(400, "There was an error parsing the body", plain=True)
        refusal = self._refusal(kind, text)
        if refusal is not None:
            twin.refused += 1
            return self._refuse(*refusal)
        body = json.loads(text)
        prompts = self._prompts(body)
        if "dies-of-seeds" in twin.breaks and "seed" in body and len(prompts[0]) > 1000:
            return self._json(500, {"error": {"message": "EngineDeadError", "code": 500}})
        limit = twin.max_model_len - ("limit-refused" in twin.breaks)
        long = fake_refusals.too_long(prompts[0], limit)
        if long and "overlong-accepted" not in twin.breaks:
            status, message = long
            unnamed = "limit-unnamed" in twin.breaks
            return self._refuse(status, "Too long." if unnamed else message)
        wanted = 1 if "n-ignored" in twin.breaks else body.get("n", 1)
        count = wanted * len(prompts)
        if self._held(body, prompts[0], count):
            return None
        script = fake_r1.script(body, twin.breaks) if kind == "chat" else None
        made = [
            generate(prompts[i // wanted], body, i % wanted, twin.breaks, script)
            for i in range(count)
        ]
        twin.asked += 1
        if "counts-nothing" not in twin.breaks:
            twin.load.book(len(prompts[0]), sum(len(one.tokens) for one in made))
        if self._tools_refused(body):
            return self._refuse(400, '"auto" tool choice requires --enable-auto-tool-choice')
        if "busy" in twin.breaks and wanted > 50:
            return self._refuse(429, "Too many requests")
        if body.get("stream"):
            return self._stream(kind, body, made)
        return self._json(200, answer(self.twin, kind, body, made))

    def _held(self, body: dict[str, Any], prompt: list[int], sequences: int) -> bool:
        """Whether the client left before there was anything to answer."""
        long = cap_of(body, set()) > 1000 or len(prompt) > 2000 or cap_of(body, set()) == 200
        if not (long and body.get("ignore_eos")):
            return False
        if body.get("stream"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
        keeps = "keeps-the-dead" in self.twin.breaks
        hold(self.twin.load, sequences, self.connection, 5.0, keeps=keeps)
        self.close_connection = True
        return True

    def _refusal(self, kind: str, text: str) -> tuple[int, str] | None:
        if not self.headers.get("content-type", "").startswith("application/json"):
            return 400, "Unsupported Media Type"
        if "errors-leak" in self.twin.breaks and '"messages":[]' in text:
            return 400, "ValueError in /usr/lib/python3/vllm/serving.py"
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return 400, "JSON decode error"
        return fake_refusals.refuse(kind, body, self.twin.model, self.twin.max_model_len)

    def _refuse(self, status: int, message: str, *, plain: bool = False) -> None:
        breaks = self.twin.breaks
        if "slow-refusals" in breaks:
            time.sleep(0.04)
        if "refusals-are-pages" in breaks:
            return self._send(status, b"<html>Bad Request</html>", "text/html")
        if "accepts-anything" in breaks:
            return self._json(200, {"choices": []})
        if "refusals-are-500" in breaks:
            status = 500
        if plain:
            return self._json(status, {"detail": message})
        said = "" if "refusals-are-mute" in breaks else message
        error = {"message": said, "type": "BadRequestError", "param": None, "code": status}
        return self._json(status, {"error": error})

    def _prompts(self, body: dict[str, Any]) -> list[list[int]]:
        prompt = body.get("prompt")
        if isinstance(prompt, list) and isinstance(prompt[0], str):
            return [self._prompt({**body, "prompt": text}) for text in prompt]
        return [self._prompt(body)]

    def _prompt(self, body: dict[str, Any], *, tokenizing: bool = False) -> list[int]:
        breaks = self.twin.breaks
        if "messages" in body:
            tokens = render(body, thinks=True, breaks=breaks)
            return tokens[1:] if "renders-otherwise" in breaks and tokenizing else tokens
        prompt: str | list[int] = body["prompt"]
        if isinstance(prompt, str):
            begins = [0] if body.get("add_special_tokens", True) else []
            if "tokenizer-adds-bos" in breaks or ("second-bos" in breaks and not tokenizing):
                begins *= 2
            return [*begins, *encode(prompt)]
        return prompt[:100] if "prompt-cut" in breaks else prompt

    def _tools_refused(self, body: dict[str, Any]) -> bool:
        return "tools-refused" in self.twin.breaks and bool(body.get("tools"))

    def _stream(self, kind: str, body: dict[str, Any], made: list[Generated]) -> None:
        breaks = self.twin.breaks
        if "stream-is-refused" in breaks:
            return self._refuse(400, "no streams")
        self.send_response(200)
        html = "stream-is-a-page" in breaks
        self.send_header(
            "Content-Type", "text/html" if html else "text/event-stream; charset=utf-8"
        )
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [json.dumps(chunk) for chunk in chunks(self.twin, kind, body, made)]
        if "stream-cut" in breaks:
            self._chunk(f"data: {events[0]}\n\n".encode())
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        if "stream-not-json" in breaks:
            events[1] = "oops"
        if "stream-error" in breaks:
            events[-1] = json.dumps({"error": {"message": "EngineDeadError", "code": 500}})
        if "no-done" not in breaks:
            events.append("[DONE]")
        if "done-twice" in breaks:
            events.append("[DONE]")
        wire = "".join(f"data: {event}\n\n" for event in events).encode()
        if "last-event-unfinished" in breaks:
            wire = wire[:-1]
        if "bytes-are-no-text" in breaks:
            wire = wire.replace(b'"id"', b'"id\xff"', 1)
        for start in range(0, len(wire), 97):  # cuts events anywhere, as a network does
            self._chunk(wire[start : start + 97])
        return self._chunk(b"")

    def _metrics(self) -> str:
        twin, lines = self.twin, []
        for number, cache in enumerate(twin.engines):
            labels = ",".join(f'{k}="{v}"' for k, v in {**cache, "engine": number}.items())
            lines.append(f"vllm:cache_config_info{{{labels}}} 1.0")
            names = ENGINE_METRICS[1:] if "metric-missing" in twin.breaks else ENGINE_METRICS
            values = self._values() if not ("idle-engine" in twin.breaks and number) else {}
            lines += [
                f'vllm:{name}{{engine="{number}"}} {float(values.get(name, 0))}' for name in names
            ]
        return "\n".join(lines) + "\n"

    def _values(self) -> dict[str, int]:
        load = self.twin.load
        return {
            "num_requests_running": load.running,
            "num_requests_waiting": load.waiting,
            "generation_tokens_total": load.tokens,
            "prompt_tokens_total": load.prompts,
            "request_success_total": load.finished,
        }

    def _openapi(self) -> dict[str, Any]:
        breaks, paths = self.twin.breaks, {}
        known = set(known_routes(Version("0.32.0")) or ())
        if "route-gone" in breaks:
            known.remove("POST /v1/responses")
        if "new-open-route" in breaks:
            known.add("POST /backdoor")
        if "admin-route" in breaks:
            known.add("POST /sleep")
        for name in known:
            method, path = name.split(" ")
            operation: dict[str, Any] = {"responses": {"200": {"description": ""}}}
            if path in ("/v1/completions", "/tokenize"):
                content = {"application/json": {"schema": PROMPT_SCHEMA}}
                operation["requestBody"] = {"required": True, "content": content}
            paths.setdefault(path, {})[method.lower()] = operation
        return {"openapi": "3.1.0", "info": {"title": "twin", "version": "1"}, "paths": paths}

    def _chunk(self, piece: bytes) -> None:
        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    def _json(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
