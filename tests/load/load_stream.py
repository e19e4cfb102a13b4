"""A server that streams completions as vLLM does, on a schedule, and remembers the prompts."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Streamed:
    """What it was asked. prompts: in the order they came."""

    url: str = ""
    prompts: list[Any] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@contextlib.contextmanager
def streaming_server(ttft: float = 0.02, tpot: float = 0.002) -> Iterator[Streamed]:
    """Runs it. ttft, tpot: seconds of every request, whatever else it does."""
    state = Streamed()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            began = time.monotonic()
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/completions":
                self.do_GET()
                return
            state.prompts.append(body["prompt"])
            state.keys.add(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(body["max_tokens"]):
                due = began + ttft + number * tpot
                time.sleep(max(0.0, due - time.monotonic()))
                self.say({"choices": [{"index": 0, "text": "x"}]})
            usage = {"prompt_tokens": 0, "completion_tokens": body["max_tokens"]}
            self.say({"choices": [], "usage": usage})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

        def say(self, event: dict[str, Any]) -> None:
            self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

        def chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

    httpd = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
