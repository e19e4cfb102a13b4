"""Watching a live server: ended, fatal in its log, or hung while /health still answers 200."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from acceptance.errors import ObservationError, ServerError
from acceptance.serving.generation import generate
from acceptance.serving.log import LogTail
from acceptance.serving.metrics import GENERATED, Metrics, scrape
from acceptance.serving.readiness import SETTLE, failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.server import Server

FATAL = re.compile(
    r"EngineCore encountered a fatal error|EngineDeadError|died unexpectedly|RPC call to \S+ timed"
)
PERIOD = 0.5
METRICS_PERIOD = 5.0
PROGRESS = (GENERATED, "vllm:prompt_tokens_total")
WORK = ("vllm:num_requests_running", "vllm:num_requests_waiting")


class ServerWatch:
    """A thread that sets server.broken and calls on_broken, once, when the server dies or hangs.

    A generation is asked for only on suspicion, so that watching disturbs no measurement.
    """

    def __init__(self, server: Server, on_broken: Callable[[ServerError], None]) -> None:
        self.server = server
        self.on_broken = on_broken
        self.latest: tuple[float, Metrics] | None = None  # the last reading, and its monotonic time
        self._readers = [LogTail(log, offset=log.stat().st_size) for log in server.logs]
        self._stop = threading.Event()
        self._progress = 0.0
        self._moved = self._measured = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends watching, before the server is ended on purpose."""
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            if error := self._find():
                if not self._stop.is_set():
                    self.server.broken = error
                    self.on_broken(error)
                return

    def _find(self) -> ServerError | None:
        custody = self.server.custody
        assert custody is not None
        if custody.exited:
            self._stop.wait(SETTLE)
            return failure(self.server, f"{custody.fate} while serving")
        lines = (line for reader in self._readers for line in reader.poll())
        if any(FATAL.search(line.text) for line in lines):
            return self._suspect("its log reports a fatal error", timeout=10)
        if time.monotonic() - self._measured >= METRICS_PERIOD:
            self._measured = time.monotonic()
            return self._stalled()
        return None

    def _stalled(self) -> ServerError | None:
        """Requests are there, yet no token moves; or the API server does not even answer."""
        hang = self.server.deployment.budgets.hang
        try:
            metrics = scrape(self.server, timeout=METRICS_PERIOD)
            self.latest = time.monotonic(), metrics
            working = sum(metrics.sum(name) for name in WORK) > 0
            progress = sum(metrics.sum(name) for name in PROGRESS)
        except ObservationError:
            working, progress = True, self._progress
        now = time.monotonic()
        if not working or progress != self._progress:
            self._progress, self._moved = progress, now
            return None
        if now - self._moved < hang:
            return None
        return self._suspect(f"no token for {now - self._moved:.0f} s with requests waiting", hang)

    def _suspect(self, why: str, timeout: float) -> ServerError | None:
        try:
            generate(self.server, self.server.model, timeout=timeout)
        except ServerError as error:
            self._stop.wait(SETTLE)
            return failure(self.server, f"is broken: {why}; {error.happened}")
        self._moved = time.monotonic()
        return None
