"""How orders come to a bench_worker, and answers from it: JSON lines on a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
from typing import Any


class Channel:
    """Orders and answers over the socket. Runs come before preparations, each in its order."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        self._orders: queue.PriorityQueue[tuple[bool, int, dict[str, Any]]] = queue.PriorityQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for number, line in enumerate(lines):
                order = json.loads(line)
                self._orders.put((order["do"] != "run", number, order))
        os._exit(0)  # whoever gave the orders is gone, whatever is being done for him

    def order(self) -> dict[str, Any]:
        """The next order; waits for it."""
        return self._orders.get()[2]

    def say(self, **answer: Any) -> None:
        self._socket.sendall(json.dumps(answer).encode() + b"\n")
