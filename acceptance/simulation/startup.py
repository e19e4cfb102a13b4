"""How the simulated server starts: line by line as vLLM's log, or as a fault has it."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from acceptance.simulation import log
from acceptance.simulation.latency import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acceptance.simulation.faults import Faults
    from acceptance.simulation.flags import Settings

OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.75 GiB."
# Where a start may run out of memory: the line of the log after which it does, the functions of the
# failing worker's stack (outermost first), and what is raised. {0}: max_model_len; {1}, {2}: GiB
# that a request of it needs, and that are there.
FAILURES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "weights": (
        "Starting to load model",
        ("load_model", "process_weights_after_loading"),
        OUT_OF_MEMORY,
    ),
    "profiling": (
        "Initial profiling/warmup run",
        ("determine_available_memory", "profile_run", "_dummy_run", "forward"),
        OUT_OF_MEMORY,
    ),
    "no-cache": (
        "Available KV cache memory",
        ("_initialize_kv_caches", "check_enough_kv_cache_memory"),
        "ValueError: No available memory for the cache blocks. Try increasing "
        "`gpu_memory_utilization` when initializing the engine.",
    ),
    "length": (
        "Available KV cache memory",
        ("_initialize_kv_caches", "check_enough_kv_cache_memory"),
        "ValueError: To serve at least one request with the model's max seq len ({0}), ({1:.2f} "
        "GiB KV cache is needed, which is larger than the available KV cache memory ({2:.2f} GiB).",
    ),
    "warmup": (
        "JIT kernel warmup",
        ("compile_or_warm_up_model", "kernel_warmup", "deep_gemm_warmup"),
        OUT_OF_MEMORY,
    ),
    "capture": (
        "JIT kernel warmup",
        ("compile_or_warm_up_model", "capture_model", "_capture_cudagraphs", "capture_end"),
        OUT_OF_MEMORY,
    ),
}


class Ended(Exception):
    """The start is over before it is done. code: of the process."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def start(settings: Settings, faults: Faults, lines: list[str]) -> None:
    """Writes the lines over the time that a start takes. Returns when the server may listen, and
    never for a start that hangs. Raises Ended."""
    fails_after = FAILURES[faults.runs_out_at][0] if faults.runs_out_at else ""
    if faults.never_ready:
        lines = lines[: len(lines) // 2]
    seconds = settings.start_seconds if faults.start_seconds is None else faults.start_seconds
    for line in lines:
        log.write(line)
        if faults.exits_at and faults.exits_at in line:
            raise Ended(0)
        if fails_after and fails_after in line:
            fail(settings, faults.runs_out_at)
            raise Ended(1)
        if faults.silent_at and faults.silent_at in line:
            await _for_ever(busy=faults.spins)
        await asyncio.sleep(seconds / len(lines))
    if faults.never_ready:
        await _for_ever(busy=False)


async def _for_ever(*, busy: bool) -> None:
    """busy: at the cost of a core, without a word."""
    while True:
        if busy:
            until = time.process_time() + 0.05
            while time.process_time() < until:
                pass
        await asyncio.sleep(0 if busy else 3600)


def fail(settings: Settings, where: str) -> None:
    """What a worker, its engine and the API server write when a start runs out of memory."""
    _, functions, text = FAILURES[where]
    machine = settings.machine
    available = machine.kv_gib(settings.length_scale)
    needed = settings.max_model_len * machine.kv_bytes_per_token / GIB
    text = text.format(settings.max_model_len, max(needed, 1.5 * available), available)
    worker, engine = log.worker_name(settings, 0), log.engine_name(settings, 0)
    for line in ("WorkerProc hit an exception.", *_traceback(functions, text)):
        log.write(log.say(worker, "multiproc_executor.py:1063", line, "ERROR"))
    below = "RuntimeError: Worker failed with error, please check the stack trace above"
    for line in ("EngineCore failed to start.", *_traceback(("run_engine_core",), below)):
        log.write(log.say(engine, "core.py:1510", line, "ERROR"))
    told = "RuntimeError: Engine core initialization failed. See root cause above."
    for line in _traceback(("wait_for_engine_startup",), told):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _traceback(functions: tuple[str, ...], text: str) -> Iterator[str]:
    yield "Traceback (most recent call last):"
    for number, function in enumerate(functions):
        file = f"/venv/site-packages/vllm/v1/{function}.py"
        yield f'  File "{file}", line {100 + number}, in {function}'
    yield text
