"""Starts a command of vLLM's with a second process beside it, which imports what engines need.

`python -m acceptance.rehearsal.inside.preloading VLLM serve …` becomes that command: same process,
same arguments. vLLM's CPU platform gives each engine and worker an interpreter of its own, and each
spends seconds on the same imports, one after the other. Here one process, Python's own fork server,
does them meanwhile, and the plugin cpu_processes lets engines and workers begin as its copies.

The fork server imports and does nothing else, so that nothing but modules is shared: it has one
thread, no sockets of vLLM's, and the libraries that vLLM would have given an engine.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

VARIABLE = "ACCEPTANCE_PRELOADED"  # pid of the API server:descriptor:address, for the plugin
FOLDER = "ACCEPTANCE_SOCKETS"  # the server's own folder, given by its warden
# What API server, engine, worker and coordinator import.
MODULES = (
    "acceptance.rehearsal.inside.cpu_processes",
    "vllm.v1.engine.core",
    "vllm.v1.engine.coordinator",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.deepseek_v2",
    "vllm.entrypoints.openai.api_server",
)
BEYOND = (3, 14)  # there a fork server asks for a key
ALONE = {"OPENBLAS_NUM_THREADS": "1"}  # NumPy and SciPy begin no threads as they are imported
SERVE = "from acceptance.rehearsal.inside.preloading import serve; serve({}, {})"


def main() -> None:
    argv = sys.argv[1:]
    folder = os.environ.get(FOLDER)
    if folder and sys.version_info < BEYOND:
        os.environ[VARIABLE] = _start(Path(folder))
    os.execvp(argv[0], argv)


def _start(folder: Path) -> str:
    """Starts the fork server; the value of VARIABLE. It ends when the last process that came of it
    or may ask it has ended."""
    address = str(folder / "preloaded")
    alive, ours = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        subprocess.Popen(
            [sys.executable, "-c", SERVE.format(listener.fileno(), alive)],
            stdin=subprocess.DEVNULL,
            pass_fds=(listener.fileno(), alive),
            env={**os.environ, **ALONE, "LD_PRELOAD": os.pathsep.join(_libraries())},
        )
    os.close(alive)
    os.set_inheritable(ours, True)
    return f"{os.getpid()}:{ours}:{address}"


def serve(listener: int, alive: int) -> None:
    """The fork server: until `alive` ends, copies of itself for those who ask at `listener`.

    Not where importing began threads: a copy has none of them, and may wait for one for ever. Nor
    where it failed, which is for engines to tell. Then nobody listens, and processes are spawned.
    """
    try:
        for name in MODULES:
            importlib.import_module(name)
        _nameable()
        if len([*Path("/proc/self/task").iterdir()]) == 1:
            forkserver.main(listener, alive, [])
    finally:
        os._exit(0)  # says nothing, and does not take all those modules down first


def _nameable() -> None:
    """vLLM renames its processes by setproctitle, whose first call looks for the memory of their
    command line, and finds it only while nobody has changed the environment."""
    with suppress(ImportError):
        importlib.import_module("setproctitle").getproctitle()


def _libraries() -> list[str]:
    """What vLLM's CPU platform lets its engines load first: its allocator, PyTorch's OpenMP."""
    given = os.environ.get("LD_PRELOAD", "")
    torch, vllm = _package("torch"), _package("vllm")
    allocators = [*vllm.glob("libs/libtcmalloc_minimal*.so*"), *vllm.glob("libs/libtcmalloc.so*")]
    openmp = [*torch.parent.glob("torch.libs/libgomp*.so*"), *torch.glob("lib/libgomp*.so*")]
    found = [str(one) for one in (*allocators[:1], *openmp[:1])]
    return [*found[:1], *filter(None, [given]), *found[1:]]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ImportError(f"{name} is not installed beside {sys.executable}")
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
