"""A program that starts, serves and ends as vLLM 0.32 does, as far as its owner can see.

`python fake_vllm.py serve MODEL --port N ...`: start-up lines in vLLM's form and order, an engine
with a worker for each data-parallel rank that outlive a killed API server (vllm#55510) and rename
themselves, an HTTP server behind VLLM_API_KEY, and a SIGTERM that lets requests in flight finish.

FAKE_VLLM holds words, with commas, each of which breaks one thing:

    starting  die-in-load exit-0-in-start silent-start spin compiles slow-but-alive dots key-in-log
    ready     health-200-but-generation-500 one-engine-hangs wrong-server metrics-404
    serving   die-while-serving hang-while-serving exit-while-serving: from the first request after
              the one for each engine that a start asks for
              leaks-gpu: each request keeps 1 GiB of the made-up GPU (tests/gpus)
    ending    ignores-sigterm clients-hang leaves-orphan forgets-environment
              drops-handlers: before it has ended, as an event loop does that is closed
    nodes     headless-dies-in-load: on every node but the head; never-meets: they start alone

Over several nodes the head waits for the others at the address that all are told, as vLLM's does.
FAKE_VLLM_PACE is the seconds that each token takes (0.005). `bench serve` is fake_bench.py.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fake_vllm_api import Api
from fake_vllm_log import exception, line, plain

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS = frozenset(filter(None, os.environ.get("FAKE_VLLM", "").split(",")))
PACE = float(os.environ.get("FAKE_VLLM_PACE", "0.005"))
KEY = os.environ.get("VLLM_API_KEY", "")
BURN = "import time\nwhile time.process_time() < 0.1: pass"


def main() -> NoReturn:
    if sys.argv[1:2] == ["bench"]:
        import fake_bench

        fake_bench.main()
        sys.exit()
    given = arguments()
    if given.headless:
        serve_headless(given)
    line("APIServer", f"non-default args: {{'model': {given.model!r}, 'port': {given.port}}}")
    if "key-in-log" in FAULTS:
        line("APIServer", f"non-default args: {{'api_key': {KEY!r}}}")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((given.host, given.port))
    line("APIServer", "Resolved architecture: DeepseekV3ForCausalLM", source="model.py:733")
    if "ignores-sigterm" in FAULTS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "leaves-orphan" in FAULTS:
        leave_orphan(listener)
    start_slowly()
    here = given.data_parallel_size_local or given.data_parallel_size
    engines = [start_engine(rank, given, listener) for rank in range(here)]
    if here < given.data_parallel_size:
        wait_for_the_others(given, given.data_parallel_size - here)
    if "die-in-load" in FAULTS:
        time.sleep(0.1)
        fail_to_load()
    if "exit-0-in-start" in FAULTS:
        end_engines(engines)
        os._exit(0)
    line("APIServer", f"Starting vLLM server on http://{given.host}:{given.port}")
    serve(given, listener, engines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--served-model-name")
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--data-parallel-size", type=int, default=1)
    parser.add_argument("--data-parallel-size-local", type=int)
    parser.add_argument("--data-parallel-start-rank", type=int, default=0)
    parser.add_argument("--data-parallel-address")
    parser.add_argument("--data-parallel-rpc-port", type=int)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--shutdown-timeout", type=float, default=0)
    return parser.parse_known_args()[0]


def start_slowly() -> None:
    """The starts that take long, or for ever."""
    if "silent-start" in FAULTS:
        time.sleep(3600)
    while "spin" in FAULTS:
        pass
    while "compiles" in FAULTS:  # each over before anybody looks twice
        subprocess.run([sys.executable, "-S", "-E", "-c", BURN], check=True)
    for step in range(8 if "slow-but-alive" in FAULTS else 0):
        line("APIServer", f"still at it, step {step}")
        time.sleep(0.3)
    for _ in range(8 if "dots" in FAULTS else 0):
        os.write(1, b".")
        time.sleep(0.3)


def serve_headless(given: argparse.Namespace) -> NoReturn:
    """A node without HTTP: engines that meet the head, until SIGTERM or the end of one."""
    address = (given.data_parallel_address, given.data_parallel_rpc_port)
    line("", f"Launching data parallel engine(s) in headless mode, with head {address}")
    if "ignores-sigterm" in FAULTS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_slowly()
    if "headless-dies-in-load" in FAULTS:
        exception("EngineCore_DP1", "EngineCore failed to start.", "OSError: no such weights")
        os._exit(1)
    if "never-meets" in FAULTS:
        wait_for_ever()
    head = None
    while head is None:
        try:
            head = socket.create_connection(address)
        except OSError:
            time.sleep(0.05)
    first = given.data_parallel_start_rank
    ranks = range(first, first + given.data_parallel_size_local)
    engines = [start_engine(rank, given, head) for rank in ranks]
    head.sendall(bytes([len(engines)]))
    told: list[int] = []
    if "ignores-sigterm" not in FAULTS:
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    while not told:
        time.sleep(0.02)
        if any(os.waitpid(pid, os.WNOHANG)[0] for pid in engines):
            os._exit(1)
    end_engines(engines)
    os._exit(0)


def wait_for_the_others(given: argparse.Namespace, ranks: int) -> None:
    """Until so many ranks of other nodes have come."""
    with socket.create_server((given.data_parallel_address, given.data_parallel_rpc_port)) as door:
        while ranks:
            ranks -= door.accept()[0].recv(1)[0]


def start_engine(rank: int, given: argparse.Namespace, listener: socket.socket) -> int:
    """An engine core with a worker of its own; its pid. Nothing ends them but a signal."""
    dp = f"_DP{rank}" if given.data_parallel_size > 1 else ""

    def engine(ready: Callable[[], object]) -> NoReturn:
        listener.close()
        rename()
        line(f"EngineCore{dp}", "Initializing a V1 LLM engine (v0.32.0) with config: model='m'")
        pid = fork(worker)
        if "ignores-sigterm" not in FAULTS:
            signal.signal(signal.SIGTERM, lambda *_: end_both(pid))
        line(f"EngineCore{dp}", "CPU KV cache size: 2,048 tokens", source="kv_cache_utils.py:2327")
        line(f"EngineCore{dp}", "init engine (profile, create kv cache, warmup) took 2.79 s")
        ready()
        wait_for_ever()

    def worker(ready: Callable[[], object]) -> NoReturn:
        rename()
        name = f"Worker{dp}_TP0_EP0"
        line(name, "Starting to load model m...", source="cpu_model_runner.py:68")
        plain("Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 7.33it/s]")
        line(name, "Explicitly set (1.0/10.46) GiB for KV cache on node 0.")
        ready()
        wait_for_ever()

    return fork(engine)


def fork(child: Callable[[Callable[[], object]], NoReturn]) -> int:
    """A process that becomes this child; its pid, once it says that it is ready."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(lambda: os.write(tell, b"1"))
    os.close(tell)
    os.read(told, 1)
    os.close(told)
    return pid


def end_both(worker: int) -> NoReturn:
    """What an engine does at SIGTERM."""
    os.kill(worker, signal.SIGTERM)
    os._exit(0)


def wait_for_ever() -> NoReturn:
    while True:
        signal.pause()


def rename() -> None:
    """Overwrites the environment as setproctitle does, unless it is told not to."""
    if os.environ.get("SPT_NOENV") and "forgets-environment" not in FAULTS:
        return
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    ctypes.memset(start, 0, end - start)


def leave_orphan(listener: socket.socket) -> None:
    """A process in a session of its own, whose parent is gone, that ignores SIGTERM."""
    if middle := os.fork():
        os.waitpid(middle, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    listener.close()
    rename()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_ever()


def fail_to_load() -> NoReturn:
    """As a worker that meets a tensor it does not know, and everybody above it."""
    name = KEY if "key-in-log" in FAULTS else "layers.1.mlp.gate.e_score_correction_bias"
    exception("Worker_TP0_EP0", "WorkerProc failed to start.", f"KeyError: '{name}'")
    below = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    exception("EngineCore", "EngineCore failed to start.", "Exception: WorkerProc failed")
    plain(f'Traceback (most recent call last):\n  File "x.py", line 1, in f\nRuntimeError: {below}')
    os._exit(1)  # engine and worker stay


def serve(given: argparse.Namespace, listener: socket.socket, engines: list[int]) -> NoReturn:
    told: list[int] = []
    if "ignores-sigterm" not in FAULTS:
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    plain("INFO:     Application startup complete.")
    name = given.served_model_name or given.model
    api = Api(listener, name, KEY, FAULTS, PACE, engines)
    api.ranks = given.data_parallel_size
    api.start()
    while not told:
        time.sleep(0.02)
        if dead := next((pid for pid in engines if os.waitpid(pid, os.WNOHANG)[0]), 0):
            text = "Engine core proc EngineCore died unexpectedly, shutting down client."
            line("APIServer", text, "ERROR", "core_client.py:690")
            engines.remove(dead)
            api.dead = True
        if api.over:
            os._exit(1)
    line("APIServer", "[shutdown] API server: shutdown triggered", source="launcher.py:254")
    api.close()
    limit = time.monotonic() + given.shutdown_timeout
    while api.running and (time.monotonic() < limit or "clients-hang" in FAULTS):
        time.sleep(0.02)
    end_engines(engines)
    if "drops-handlers" in FAULTS:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(0.5)
    plain("INFO:     Application shutdown complete.")
    os._exit(0)


def end_engines(engines: list[int]) -> None:
    for engine in engines:
        os.kill(engine, signal.SIGTERM)
        os.waitpid(engine, 0)


if __name__ == "__main__":
    main()
