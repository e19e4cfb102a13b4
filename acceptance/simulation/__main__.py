"""`python -m acceptance.simulation serve MODEL …`: the simulated server as a process.

Takes vLLM's flags as this suite writes them, the API key from VLLM_API_KEY, and faults from
ACCEPTANCE_SIMULATION. SIGTERM lets requests in flight finish within --shutdown-timeout.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from aiohttp import web

from acceptance.errors import InputError
from acceptance.simulation import log
from acceptance.simulation.app import Routes
from acceptance.simulation.arrivals import Connection, Unread
from acceptance.simulation.faults import VARIABLE, Faults, read_faults
from acceptance.simulation.flags import Settings, parse
from acceptance.simulation.service import Service
from acceptance.simulation.startup import Ended, start

if TYPE_CHECKING:
    from collections.abc import Callable

# Variables of vLLM's that this suite sets or keeps, and that are known to it.
KNOWN = frozenset(
    {
        *("VLLM_API_KEY", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "VLLM_NO_USAGE_STATS"),
        *("VLLM_LOGGING_LEVEL", "VLLM_USE_DEEP_GEMM", "VLLM_ENGINE_READY_TIMEOUT_S"),
        "VLLM_RPC_BASE_PATH",
    }
)
CUT = 1.0  # seconds for connections that outlast the shutdown timeout


async def serve(settings: Settings, faults: Faults, key: str, unknown: list[str]) -> None:
    """Starts, serves, and ends with SIGTERM or SIGINT. Raises Ended for a start that fails."""
    service = Service(settings, faults)
    routes = Routes(service, key)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lines = list(log.startup(settings, service.version, service.kv_tokens, unknown))
    starting = loop.create_task(start(settings, faults, lines))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    starting.result()
    runner = web.AppRunner(routes.application(), handler_cancellation=True, shutdown_timeout=CUT)
    await runner.setup()
    server = runner.server
    assert server is not None
    unread = Unread()
    service.pump.unread = unread.first
    listening = await loop.create_server(
        lambda: Connection(server, unread, loop=loop), settings.host, settings.port, backlog=4096
    )
    log.write(log.READY)
    pumping = loop.create_task(service.pump.run())
    await stopping
    log.write("INFO:     Shutting down")
    listening.close()
    limit = time.monotonic() + settings.shutdown_timeout
    while routes.busy and time.monotonic() < limit:
        await asyncio.sleep(0.02)
    await runner.cleanup()
    pumping.cancel()
    log.write("INFO:     Application shutdown complete.")


def main(words: list[str]) -> int:
    """Exit code: 0 after SIGTERM, 1 for what the environment asks and nobody knows, 2 for a bad
    command line, and what a fault of the start ends with."""
    if words[:1] != ["serve"]:
        sys.stderr.write("vllm: error: argument subparser: the simulation only serves\n")
        return 2
    settings = parse(words[1:])
    try:
        faults = read_faults(os.environ.get(VARIABLE))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    given = [name for name in os.environ if name.startswith("VLLM_")]
    unknown = sorted(set(given) - KNOWN)
    if unknown and settings.validate_environment:
        text = f"ValueError: Unknown vLLM environment variable detected: {unknown[0]}"
        log.write(log.say("APIServer", "envs.py:2130", text, "ERROR"))
        return 1
    key = os.environ.get("VLLM_API_KEY", "")
    with asyncio.Runner(loop_factory=_loop()) as runner:
        try:
            runner.run(serve(settings, faults, key, unknown))
        except Ended as ended:
            return ended.code
    return 0


def _loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed, as beside vLLM; it sends faster."""
    if find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
        "uvloop"
    ).new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
