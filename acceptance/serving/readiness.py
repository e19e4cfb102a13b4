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
from acceptance.secrets import Redactor
from acceptance.serving.cause import of_death, root_cause
from acceptance.serving.client import client
from acceptance.serving.generation import generate, prove_identity
from acceptance.serving.log import LogTail
from acceptance.serving.phases import Phases
from acceptance.serving.server import Server, Startup

if TYPE_CHECKING:
    from collections.abc import Callable

POLL = 0.25
SETTLE = 3.0  # seconds a dying server gets to write down why
BUSY = 0.02  # share of one core below which a process tree counts as doing nothing
CPU_PERIOD = 2.0  # seconds over which that share is taken


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
    exceeds the total budget, answers /health yet cannot generate, or does not ask for its key.
    """
    assert server.custody is not None
    assert server.log is not None
    watch = _Watch(server, tell)
    while not (_healthy(server) and _is_ours(server, watch)):
        watch.step()
        time.sleep(POLL)
    watch.step()
    _first_generations(server)
    server.custody.fetch()
    watch.step()
    now = time.monotonic()
    watch.tracker.ready(now)
    return Startup(watch.tracker.seconds(now), now - watch.began, watch.tracker.facts)


class _Watch:
    def __init__(self, server: Server, tell: Callable[[Progress], None]) -> None:
        assert server.log is not None
        self.server = server
        self.tell = tell
        self.began = self.lively = self.spoke = time.monotonic()
        self.cpu_period = min(CPU_PERIOD, server.deployment.budgets.silence / 4)
        self.readers = [LogTail(log) for log in server.logs]
        self.tracker = Phases(self.began)
        self.cpu = 0.0
        self.cpu_seen = self.began
        self.told = 0.0
        self.line = ""
        self.read = 0

    def step(self) -> None:
        """Reads what is new and raises when the start has failed."""
        now = time.monotonic()
        for reader in self.readers:
            for line in reader.poll():
                self.tracker.feed(line, now)
                self.line = line.text
        read = sum(reader.offset for reader in self.readers)
        if read != self.read:
            self.read = read
            self.spoke = self.lively = now
        self._note_cpu(now)
        if now - self.told >= 0.5:
            self.told = now
            seconds = now - self.began
            name = self.server.deployment.name
            phase = self.tracker.phase
            self.tell(Progress(name, str(phase), seconds, self.tracker.progress, self.line))
        self._raise_if_failed(now)

    def _note_cpu(self, now: float) -> None:
        if now - self.cpu_seen < self.cpu_period:
            return
        custody = self.server.custody
        assert custody is not None
        used = custody.cpu_seconds()
        if used - self.cpu > BUSY * (now - self.cpu_seen):
            self.lively = now
        self.cpu, self.cpu_seen = used, now

    def _raise_if_failed(self, now: float) -> None:
        budgets = self.server.deployment.budgets
        custody = self.server.custody
        assert custody is not None
        phase = self.tracker.phase
        if custody.exited:
            raise failure(self.server, f"{custody.fate} while {phase}")
        if now - self.lively > budgets.silence:
            silent = now - self.lively
            raise failure(
                self.server,
                f"was silent for {silent:.0f} s while {phase}: no log line, no CPU time",
                hint="see where it hangs with py-spy dump; a hang after NCCL is often a bad link",
            )
        if now - self.began > budgets.start:
            late = f"was not ready after {budgets.start:.0f} s, still {phase}"
            if now - self.spoke > budgets.silence:  # busy all the same, or it were silent
                raise failure(
                    self.server,
                    f"{late}: busy, with no log line for {now - self.spoke:.0f} s",
                    hint="it spins or compiles: see where with py-spy dump (vllm#51533)",
                )
            raise failure(
                self.server,
                late,
                hint="if it was making progress, raise budgets.start in the deployment file",
            )


def failure(server: Server, happened: str, hint: str = "", cause: str = "") -> ServerError:
    """A ServerError naming the root cause from the server's log, unless one is given; from the log
    of the node that ended first, if any did. Free of the server's key, whatever the server said."""
    log = server.custody.log if server.custody is not None else server.log
    assert log is not None
    clean = Redactor([server.api_key] if server.api_key else [])
    asked = server.command.shell() if server.command else server.base_url
    logged = None if cause else of_death(root_cause(log), happened)
    return ServerError(
        clean(f"{server.deployment.name} {happened}"),
        asked=asked,
        cause=clean(logged.line if logged else cause),
        log=log,
        hint=clean(hint or (logged.hint if logged else "")),
    )


def _healthy(server: Server) -> bool:
    try:
        with client(server, timeout=2) as http:
            return http.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def _is_ours(server: Server, watch: _Watch) -> bool:
    """Whether what answers at the port has our key. While our server has not said that it listens
    it may be another's, which ours will find out when it binds the port."""
    try:
        prove_identity(server)
    except ServerError as error:
        watch.step()
        if not watch.tracker.listening:
            return False
        happened = f"answered /health with 200, but: {error.happened}"
        raise failure(server, happened, error.hint, error.cause) from error
    return True


def _first_generations(server: Server) -> None:
    """One generation per engine at once, so that each engine gets one."""
    timeout = server.deployment.budgets.request
    count = server.deployment.layout.data
    try:
        with ThreadPoolExecutor(count) as pool:
            asked = [
                pool.submit(generate, server, server.model, timeout=timeout) for _ in range(count)
            ]
            for one in asked:
                one.result()
    except ServerError as error:
        time.sleep(SETTLE)
        raise failure(server, f"answered /health with 200, but: {error.happened}") from error
