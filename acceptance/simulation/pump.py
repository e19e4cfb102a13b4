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
    however late this process was: delays do not add up. done: told of every finished job."""

    def __init__(self, scheduler: Scheduler, done: Callable[[Job], None]) -> None:
        self.scheduler = scheduler
        self.done = done
        self.lateness = Lateness()
        self.hung = False
        self._work = asyncio.Event()

    def submit(self, job: Job) -> None:
        """Queues a job, and wakes the engines."""
        self.scheduler.submit(job)
        self._work.set()

    async def run(self) -> None:
        while True:
            self._work.clear()
            if not self.scheduler.busy:
                await self._work.wait()
            at = time.monotonic()
            while (step := self.scheduler.plan(at)) is not None:
                await until(step.end)
                if self.hung:
                    return
                self.lateness.note(time.monotonic() - step.end)
                for job in self.scheduler.apply(step):
                    self.done(job)
                at = step.end
                await asyncio.sleep(0)


async def until(moment: float) -> None:
    """Waits for a moment of time.monotonic(), to a fraction of a millisecond where the machine
    lets it."""
    rest = moment - time.monotonic() - SPIN
    if rest > 0:
        await asyncio.sleep(rest)
    while time.monotonic() < moment:
        await asyncio.sleep(0)
