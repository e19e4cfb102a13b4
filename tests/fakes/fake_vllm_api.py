"""The HTTP side of the fake: health, models, completions, metrics."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_vllm_log import exception

if TYPE_CHECKING:
    import socket


class Api:
    """What is served. running: requests being answered. dead: the engine is gone. over: somebody
    was told so, after which vLLM ends itself."""

    def __init__(
        self,
        listener: socket.socket,
        model: str,
        key: str,
        faults: frozenset[str],
        pace: float,
        engines: list[int],
    ) -> None:
        self.model, self.key, self.faults, self.pace = model, key, faults, pace
        self.engines = engines
        self.ranks = len(engines)
        self.running = self.tokens = self.prompts = self.succeeded = 0
        self.asked = itertools.count(1)
        self.lock = threading.Lock()
        self.dead = self.over = self.hanging = False
        api = self

        class Bound(Handler):
            pass

        Bound.api = api
        self._http = ThreadingHTTPServer(listener.getsockname(), Bound, bind_and_activate=False)
        self._http.socket.close()
        self._http.socket = listener
        self._http.daemon_threads = True
        self._http.request_queue_size = 128  # every rank is asked at once
        self._http.server_activate()

    def start(self) -> None:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Accepts no more; with the fault, leaves those who wait hanging."""
        if "clients-hang" in self.faults:
            self.hanging = True
        self._http.shutdown()
        self._http.server_close()

    def count(
        self, running: int = 0, tokens: int = 0, prompts: int = 0, succeeded: int = 0
    ) -> None:
        with self.lock:
            self.running += running
            self.tokens += tokens
            self.prompts += prompts
            self.succeeded += succeeded
            if succeeded and "leaks-gpu" in self.faults:
                with Path(os.environ["FAKE_NVML_STATE"]).open("a") as state:
                    state.write(f"leaked_mib {self.succeeded << 10}\n")

    def metrics(self) -> str:
        running = max(1, self.running) if self.hanging else self.running
        values = {
            "num_requests_running": running,
            "num_requests_waiting": 0,
            "generation_tokens_total": self.tokens,
            "prompt_tokens_total": self.prompts,
            "request_success_total": self.succeeded,
            "prefix_cache_hits_total": 0,
        }
        return "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in values.items())


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        api = self.api
        if self._locked_out():
            return
        if self.path == "/health":
            self._send(503 if api.dead else 200, b"")
        elif self.path == "/metrics" and "metrics-404" not in api.faults:
            self._send(200, api.metrics().encode())
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": api.model, "object": "model"}]})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self._locked_out():
            return
        api = self.api
        api.count(running=1)
        try:
            self._complete(body)
        except OSError:  # a client that went away
            self.close_connection = True
        finally:
            api.count(running=-1)

    def _locked_out(self) -> bool:
        api = self.api
        if not self.path.startswith("/v1") or "wrong-server" in api.faults:
            return False
        if self.headers.get("authorization") == f"Bearer {api.key}":
            return False
        self._json(401, {"error": "Unauthorized"})
        return True

    def _complete(self, body: dict[str, Any]) -> None:
        api = self.api
        if "health-200-but-generation-500" in api.faults:
            exception(
                "EngineCore",
                "EngineCore encountered a fatal error.",
                "NotImplementedError",
                "all_gatherv",
            )
            return self._json(500, {"error": {"message": "EngineCore encountered an issue."}})
        asked = next(api.asked)
        if asked == api.ranks and "one-engine-hangs" in api.faults:
            api.hanging = True
        if asked > api.ranks:
            self._break()
        api.count(prompts=5)
        wanted = int(body["max_tokens"])
        prompt = body.get("prompt")
        given = len(prompt) if isinstance(prompt, list) else 5
        usage = {
            "prompt_tokens": given,
            "completion_tokens": wanted,
            "total_tokens": given + wanted,
        }
        if body.get("stream"):
            return self._stream(wanted, usage)
        for _ in range(wanted):
            self._token()
        if api.dead:
            api.over = True
            return self._json(500, {"error": {"message": "EngineCore encountered an issue."}})
        api.count(succeeded=1)
        return self._json(200, {"choices": [{"text": " sea" * wanted}], "usage": usage})

    def _break(self) -> None:
        """What the faults of a serving server do at a request."""
        api = self.api
        if "exit-while-serving" in api.faults:
            exception("APIServer", "Uncaught exception", "MemoryError: out of host memory", "step")
            os._exit(3)
        if "die-while-serving" in api.faults:
            for engine in api.engines:
                os.kill(engine, signal.SIGKILL)
            while not api.dead:
                time.sleep(0.01)
        api.hanging = api.hanging or "hang-while-serving" in api.faults

    def _token(self) -> None:
        api = self.api
        time.sleep(api.pace)
        while api.hanging:
            time.sleep(0.05)
        api.count(tokens=1)

    def _stream(self, wanted: int, usage: dict[str, int]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(wanted):
            self._token()
            self._event(json.dumps({"choices": [{"text": " sea"}]}))
        self._event(json.dumps({"choices": [], "usage": usage}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")
        self.api.count(succeeded=1)

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")

    def _json(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
