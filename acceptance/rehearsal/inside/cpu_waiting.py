"""vLLM plugin: who waits for a message lets others compute.

For a second after each message vLLM's engine and workers look for the next one without a pause,
yielding their core between looks. That saves microseconds where each has a core of its own; where
two ranks, the engine, the web server and the suite share two, it takes the time of those that are
waited for. Here a look that finds nothing is followed by a short sleep. (Sleeping until the
writer's notification, as vLLM does after that second, is no way: in 0.32 some never come.)
"""

from __future__ import annotations

import time

PAUSE = 1e-4  # seconds; a step of the tiny checkpoint takes about 0.02


def register() -> None:
    """Entry point of `vllm.general_plugins`; vLLM calls it in each of its processes."""
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = _pause


def _pause() -> None:
    time.sleep(PAUSE)
