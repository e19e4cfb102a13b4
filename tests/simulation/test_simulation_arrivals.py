"""When a request came, and that a step waits for those that it may have."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from acceptance.simulation.arrivals import WRITING, Unread, began
from acceptance.simulation.engine import Job, Limits, Scheduler
from acceptance.simulation.faults import Faults
from acceptance.simulation.latency import Machine
from acceptance.simulation.pump import Pump

if TYPE_CHECKING:
    from simulation_world import Running


@pytest.mark.parametrize(
    ("opened", "bytes_came", "came"),
    [
        (5.0, 5.1, 5.0),  # with its connection
        (5.0, 5.1 + WRITING, 5.1 + WRITING),  # on one that was opened ahead
        (None, 5.1, 5.1),  # on one that has served before
    ],
)
def test_a_request_comes_with_its_connection(
    opened: float | None, bytes_came: float, came: float
) -> None:
    assert began(opened, bytes_came) == came


def test_the_oldest_connection_counts_until_its_request_is_read_or_it_is_old() -> None:
    unread, now = Unread(), time.monotonic()
    names = ("old", "first", "second")
    for name, opened in zip(names, (now - 2 * WRITING, now, now + 1), strict=True):
        unread.add(name, opened)  # type: ignore[arg-type]
    assert unread.first() == now
    unread.remove("first")  # type: ignore[arg-type]
    assert unread.first() == now + 1
    unread.remove("second")  # type: ignore[arg-type]
    assert unread.first() is None


def test_a_step_waits_for_a_request_that_it_may_have() -> None:
    scheduler = Scheduler(
        Machine("H200", "fp8", 8, 1), Limits(64, 8192, 100_000), Faults(noise=0), front_end=0
    )
    pump = Pump(scheduler, lambda job: None)
    began_at = time.monotonic()
    jobs = [Job(10, 3, began_at, lambda *_: None) for _ in range(2)]
    looks = 0

    def unread() -> float | None:
        """The second is read at the third look."""
        nonlocal looks
        looks += 1
        if looks == 3:
            pump.submit(jobs[1])
        return began_at if looks < 3 else None

    pump.unread = unread

    async def play() -> None:
        pump.submit(jobs[0])
        running = asyncio.ensure_future(pump.run())
        while not all(len(job.times) == 3 for job in jobs):
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(play())
    assert jobs[1].times[0] == jobs[0].times[1]  # in the very next step


def test_a_server_tells_how_late_its_first_tokens_were(honest: Running) -> None:
    name = "simulation:first_token_late_seconds_count"
    before = honest.metrics().sum(name)
    assert honest.complete().status_code == 200
    assert honest.metrics().sum(name) == before + 1
