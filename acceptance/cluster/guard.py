"""Stands by for a warden that Ray may end with its actor.

`python -m acceptance.cluster.guard MARK FOLDER` leaves its parent at once, so that whoever ends the
parent's children does not end it. When its standard input ends, so has the actor: the warden gets
its time to end the server, what still carries the mark then is killed, and the folder, of which the
driver has a copy if it lives, is removed.
"""

from __future__ import annotations

import os
import shutil
import sys
import time

from acceptance.serving.processes import kill, marked, terminate
from acceptance.serving.warden import ORPHAN_GRACE

LATE = ORPHAN_GRACE + 4.0  # seconds after which a warden is not waited for
PERIOD = 0.2


def guard(mark: str) -> None:
    """Blocks until nothing carries the mark."""
    sys.stdin.buffer.read()
    limit = time.monotonic() + LATE
    terminate(marked(mark))
    while (left := marked(mark)) and time.monotonic() < limit:
        time.sleep(PERIOD)
    while left := marked(mark):
        kill(left)
        time.sleep(PERIOD)


def main() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    guard(sys.argv[1])
    shutil.rmtree(sys.argv[2], ignore_errors=True)


if __name__ == "__main__":
    main()
