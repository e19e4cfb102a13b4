"""The clock of the simulated server: runs the scheduler's steps at their absolute moments."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.simulation.engine import Job, Scheduler

# The event loop's timers round up to a millisecond; the rest is waited for by looking at the clock.
SPIN = 0.0015
# Turns of the event loop before a step is planned: to accept a connection, to read from it, to wake
# its task and to run it. What came while this process was kept from its core is in the step then.
TURNS = 4
PATIENCE, PAUSE = 0.25, 0.0005  # seconds for requests that a step may need, and between two looks


@dataclass
class Lateness:
    """How far behind its own schedule the server was when a step's tokens began to be sent, s."""

    steps: int = 0
    worst: float = 0.0
    total: float = 0.0

    def note(self, seconds: float) -> None:
        self.steps += 1
        self.worst = max(self.worst, seconds)
        self.total += seconds

    @property
    def mean(self) -> float:
        return self.total / self.steps if self.steps else 0.0


class Pump:
    """Runs until cancelled. A step ends when it was planned to, and the next begins at that moment,
    however late this process was: delays do not add up. done: told of every finished job. unread:
    when the oldest connection was made of which the request has not been read; None for none."""

    def __init__(self, scheduler: Scheduler, done: Callable[[Job], None]) -> None:
        self.scheduler = scheduler
        self.done = done
        self.lateness = Lateness()
        self.unread: Callable[[], float | None] = lambda: None
        self.hung = False
        self._work = asyncio.Event()

    def submit(self, job: Job) -> None:
        """Queues a job, and wakes the engines."""
        self.scheduler.submit(job)
        self._work.set()

    async def run(self) -> None:
        at = 0.0
        while True:
            self._work.clear()
            if not self.scheduler.busy:
                await self._work.wait()
            while (step := self.scheduler.plan(at)) is not None:
                await until(step.end)
                if self.hung:
                    return
                self.lateness.note(time.monotonic() - step.end)
                for job in self.scheduler.apply(step):
                    self.done(job)
                at = step.end
                await self._read_all(at)

    async def _read_all(self, at: float) -> None:
        """Waits until every request is here that a step may have which begins at this moment: one
        that is read late must not be served late."""
        limit = time.monotonic() + PATIENCE
        for _ in range(TURNS):
            await asyncio.sleep(0)
        while (first := self.unread()) is not None and time.monotonic() < limit:
            if self.scheduler.earliest(first) > at:
                break
            await asyncio.sleep(PAUSE)


async def until(moment: float) -> None:
    """Waits for a moment of time.monotonic(), to a fraction of a millisecond where the machine
    lets it."""
    rest = moment - time.monotonic() - SPIN
    if rest > 0:
        await asyncio.sleep(rest)
    while time.monotonic() < moment:
        await asyncio.sleep(0)
