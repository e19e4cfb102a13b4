"""The process that owns one server: `python -m acceptance.serving.warden`.

It reads one JSON order from standard input, starts the server and answers with JSON events, one a
line. Standard input stays open as a lifeline: when it ends, because pytest asked or because pytest
died of any signal, the server's whole process tree is ended too. It is the tree's subreaper, so
orphaned engines come to it; whatever still carries the server's mark in its environment at the
end is killed as well.

Order: {"argv", "env", "cwd", "log", "mark", "grace"}; then {"signal": 15} or {"stop": seconds}.
Events: {"event": "started", "pid"}, {"event": "exited", "code"},
{"event": "gone", "code", "survivors", "seconds"}.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from acceptance.serving.processes import kill, marked

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None)
ORPHAN_GRACE = 6.0  # seconds: with the lifeline cut, everything must be gone within 15
KILL_WAIT = 5.0


class Warden:
    """One server's owner. order: see the module."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.mark = str(order["mark"])
        self.code: int | None = None
        with Path(order["log"]).open("ab") as log:
            self.server = subprocess.Popen(
                order["argv"],
                env=order["env"],
                cwd=order["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        say(event="started", pid=self.server.pid)

    def reap(self) -> None:
        """Collects ended children, adopted ones included, and notes the server's exit code."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.server.pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.server.returncode = self.code
                say(event="exited", code=self.code)

    def signal(self, number: int) -> None:
        """A signal to the API server alone, as an operator or an orchestrator sends it."""
        if self.code is None:
            os.kill(self.server.pid, number)

    def end(self, grace: float) -> None:
        """SIGTERM to the server, grace seconds for the tree to go, then SIGKILL to the rest."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        self._wait(grace)
        late = [process.pid for process in marked(self.mark, os.getpid())]
        limit = time.monotonic() + KILL_WAIT
        while (left := marked(self.mark, os.getpid())) and time.monotonic() < limit:
            kill(left)
            self._wait(0.5)
        self.reap()
        seconds = round(time.monotonic() - began, 3)
        say(event="gone", code=self.code, survivors=late, seconds=seconds)

    def _wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            self.reap()
            if not marked(self.mark, os.getpid()):
                return
            time.sleep(0.1)


def say(**event: Any) -> None:
    """One event to pytest. A pytest that is gone must not stop the cleaning up."""
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - kept open until the end


def _end_with_parent() -> None:
    # Should the warden itself be killed, the API server still gets the chance to end its engines.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked_to_end.append(number))
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    lifeline = sys.stdin.fileno()
    pending = b""
    while b"\n" not in pending:
        chunk = os.read(lifeline, 1 << 16)
        if not chunk:
            return
        pending += chunk
    first, _, pending = pending.partition(b"\n")
    try:
        warden = Warden(json.loads(first))
    except OSError as error:
        say(event="refused", reason=str(error))
        return
    while True:
        warden.reap()
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            command = json.loads(line)
            if "signal" in command:
                warden.signal(int(command["signal"]))
            else:
                warden.end(float(command["stop"]))
                return
        if asked_to_end:
            warden.end(ORPHAN_GRACE)
            return
        if select.select([lifeline], [], [], 0.1)[0]:
            chunk = os.read(lifeline, 1 << 16)
            if not chunk:
                warden.end(ORPHAN_GRACE)
                return
            pending += chunk


if __name__ == "__main__":
    main()
