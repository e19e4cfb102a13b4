"""What the fake server has in flight, and the books it keeps of it."""

from __future__ import annotations

import select
import socket
import threading
import time
from dataclasses import dataclass, field

ROOM = 128  # sequences that run at once


@dataclass
class Load:
    """held: sequences in flight. prompts, tokens, finished: what /metrics counts."""

    held: int = 0
    prompts: int = 0
    tokens: int = 0
    finished: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def running(self) -> int:
        return min(self.held, ROOM)

    @property
    def waiting(self) -> int:
        return self.held - self.running

    def take(self, sequences: int) -> None:
        with self.lock:
            self.held += sequences

    def book(self, prompts: int, tokens: int) -> None:
        with self.lock:
            self.prompts += prompts
            self.tokens += tokens
            self.finished += 1


def hold(load: Load, sequences: int, client: socket.socket, seconds: float, *, keeps: bool) -> bool:
    """In flight until the client leaves or seconds are over; whether it left. keeps: what it held
    stays taken."""
    load.take(sequences)
    limit, left = time.monotonic() + seconds, False
    while not left and time.monotonic() < limit:
        if select.select([client], [], [], 0.005)[0]:
            try:
                left = not client.recv(1, socket.MSG_PEEK)
            except OSError:
                left = True
    if not keeps:
        load.take(-sequences)
    return left
