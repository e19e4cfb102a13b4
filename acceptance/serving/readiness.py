"""Waiting for a starting server: until it really generates, fails, falls silent or takes too long.

A wall clock alone is wrong both ways (vllm#56725 failed 15 s short of ready; TensorRT-LLM#9343
took two hours to tell of a crash), so progress is watched: log lines and CPU time.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from acceptance.errors import ServerError
from acceptance.serving.cause import root_cause
from acceptance.serving.generation import generate, prove_identity
from acceptance.serving.log import LogTail
from acceptance.serving.phases import Phases
from acceptance.serving.processes import cpu_seconds
from acceptance.serving.server import Server, Startup

if TYPE_CHECKING:
    from collections.abc import Callable

POLL = 0.25
SETTLE = 3.0  # seconds a dying server gets to write down why
BUSY = 0.02  # share of one core below which a process tree counts as doing nothing


@dataclass(frozen=True)
class Progress:
    """What a starting server is doing, for people. seconds: since launch; detail: such as
    `shards 3/163`; line: its newest log line."""

    deployment: str
    phase: str
    seconds: float
    detail: str = ""
    line: str = ""


def wait_ready(server: Server, tell: Callable[[Progress], None] = lambda _: None) -> Startup:
    """Blocks until the server generates, with progress told about twice a second.

    Raises ServerError with the root cause from the log when it ends, is silent beyond its budget,
    exceeds the total budget, or answers /health yet cannot generate.
    """
    assert server.custody is not None
    assert server.log is not None
    watch = _Watch(server, tell)
    while not _healthy(server):
        watch.step()
        time.sleep(POLL)
    watch.step()
    _first_generations(server)
    watch.step()
    now = time.monotonic()
    watch.tracker.ready(now)
    return Startup(watch.tracker.seconds(now), now - watch.began, watch.tracker.facts)


class _Watch:
    def __init__(self, server: Server, tell: Callable[[Progress], None]) -> None:
        assert server.log is not None
        self.server = server
        self.tell = tell
        self.began = self.lively = time.monotonic()
        self.reader = LogTail(server.log)
        self.tracker = Phases(self.began)
        self.cpu = 0.0
        self.cpu_seen = self.began
        self.told = 0.0
        self.line = ""

    def step(self) -> None:
        """Reads what is new and raises when the start has failed."""
        now = time.monotonic()
        for line in self.reader.poll():
            self.tracker.feed(line, now)
            self.line = line.text
            self.lively = now
        self._note_cpu(now)
        if now - self.told >= 0.5:
            self.told = now
            seconds = now - self.began
            name = self.server.deployment.name
            phase = self.tracker.phase
            self.tell(Progress(name, str(phase), seconds, self.tracker.progress, self.line))
        self._raise_if_failed(now)

    def _note_cpu(self, now: float) -> None:
        if now - self.cpu_seen < 2:
            return
        custody = self.server.custody
        assert custody is not None
        used = cpu_seconds(custody.processes())
        if used - self.cpu > BUSY * (now - self.cpu_seen):
            self.lively = now
        self.cpu, self.cpu_seen = used, now

    def _raise_if_failed(self, now: float) -> None:
        budgets = self.server.deployment.budgets
        custody = self.server.custody
        assert custody is not None
        phase = self.tracker.phase
        if custody.exited:
            code = custody.exit_code
            raise failure(self.server, f"ended with exit code {code} while {phase}")
        if now - self.lively > budgets.silence:
            silent = now - self.lively
            raise failure(
                self.server,
                f"was silent for {silent:.0f} s while {phase}: no log line, no CPU time",
                hint="see where it hangs with py-spy dump; a hang after NCCL is often a bad link",
            )
        if now - self.began > budgets.start:
            raise failure(
                self.server,
                f"was not ready after {budgets.start:.0f} s, still {phase}",
                hint="if it was making progress, raise budgets.start in the deployment file",
            )


def failure(server: Server, happened: str, hint: str = "") -> ServerError:
    """A ServerError naming the root cause from the server's log."""
    assert server.log is not None
    cause = root_cause(server.log)
    asked = server.command.shell() if server.command else server.base_url
    return ServerError(
        f"{server.deployment.name} {happened}",
        asked=asked,
        cause=cause.line if cause else "",
        log=server.log,
        hint=hint or (cause.hint if cause else ""),
    )


def _healthy(server: Server) -> bool:
    try:
        return httpx.get(f"{server.base_url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _first_generations(server: Server) -> None:
    """One generation per engine at once, so that each engine gets one; then the identity."""
    timeout = server.deployment.budgets.request
    count = server.deployment.layout.data
    try:
        with ThreadPoolExecutor(count) as pool:
            asked = [
                pool.submit(generate, server, server.model, timeout=timeout) for _ in range(count)
            ]
            for one in asked:
                one.result()
        prove_identity(server)
    except ServerError as error:
        time.sleep(SETTLE)
        raise failure(server, f"answered /health with 200, but: {error.happened}") from error
