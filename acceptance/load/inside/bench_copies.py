"""vLLM's benchmark client imported once, for several workers of one machine.

`python -m acceptance.load.inside.bench_copies SOCKET` imports the tool and says "ready". A
bench_worker that finds SOCKET in its environment asks there and, instead of importing the tool
itself, stands for a copy of this process: the copy obeys its orders with its output, environment
and folder, and neither outlives the other. Ends with whoever started it, by its standard input,
and takes the folder of SOCKET with it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from acceptance.load.inside.bench_channel import Channel
from acceptance.load.inside.bench_worker import Tool, work

TAKEN = b"+"
THREADS = Path("/proc/self/task")
FORKABLE = "jemalloc_bg_thd"  # of pyarrow's allocator, which sees to forks itself


def stand_for(copies: str, address: str) -> bool:
    """Has a copy obey the orders at an address, and returns when it has ended; False where there is
    none to be had."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
        asked.connect(copies)
        order = {
            "python": sys.executable,
            "address": address,
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
        }
        socket.send_fds(asked, [TAKEN], [1, 2])
        asked.sendall(json.dumps(order).encode() + b"\n")
        if asked.recv(1) != TAKEN:
            return False
        with contextlib.suppress(OSError):
            asked.recv(1)
        return True
    return False


def main() -> None:
    tool = Tool()
    gc.collect()
    gc.freeze()
    # A copy has none of these threads, and may wait for one for ever.
    begun = [name for name in _threads() if name != FORKABLE]
    if len(begun) > 1:
        sys.exit(f"importing began threads, so each worker imports by itself: {begun}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as ready:
        listener.bind(sys.argv[1])
        listener.listen(64)
        ready.register(listener, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while [key.fileobj for key, _ in ready.select()] == [listener]:
            asked, _ = listener.accept()
            if os.fork() == 0:
                ready.close()
                listener.close()
                _copy(asked, tool)
            asked.close()
    shutil.rmtree(Path(sys.argv[1]).parent, ignore_errors=True)


def _threads() -> list[str]:
    return [(thread / "comm").read_text().strip() for thread in THREADS.iterdir()]


def _copy(asked: socket.socket, tool: Tool) -> None:
    """The rest of a copy's life."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, outputs, _, _ = socket.recv_fds(asked, 1, 2)
        order: dict[str, Any] = json.loads(asked.makefile("rb").readline())
        if order["python"] != sys.executable:
            os._exit(1)
        for own, given in zip((1, 2), outputs, strict=True):
            os.dup2(given, own)
            os.close(given)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(order["environment"])
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [path for path in paths if path and path not in sys.path]
        os.chdir(order["folder"])
        asked.sendall(TAKEN)
        threading.Thread(target=_end_with, args=(asked,), daemon=True).start()
        print(f"a copy of {os.getppid()}, which has imported the tool", flush=True)
        work(Channel(order["address"]), tool)
    finally:
        os._exit(1)


def _end_with(asked: socket.socket) -> None:
    with contextlib.suppress(OSError):
        asked.recv(1)
    os._exit(0)


if __name__ == "__main__":
    main()
