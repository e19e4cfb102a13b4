"""The process that owns one server: `python -m acceptance.serving.warden`.

It reads one JSON order from standard input, starts the server and answers with JSON events, one a
line. Standard input stays open as a lifeline: when it ends, because pytest asked or because pytest
died of any signal, the server's whole process tree is ended too. It is the tree's subreaper, so
orphaned engines come to it; whatever still carries the server's mark in its environment at the
end is killed as well.

Order: {"argv", "env", "cwd", "log", "mark", "secret"}; then {"signal": 15} or {"stop": seconds}.
Events: {"event": "started", "pid", "sockets"} or {"event": "refused", "reason"}, {"event":
"exited", "code"},
{"event": "dismissed"} when SIGTERM ends the warden and not an order, and at last {"event": "gone",
"code", "survivors", "seconds"}.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.serving import sockets
from acceptance.serving.processes import kill, marked, terminate

if TYPE_CHECKING:
    import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None)
ORPHAN_GRACE = 6.0  # seconds: with the lifeline cut, everything must be gone within 15
KILL_WAIT = 5.0
PERIOD = 0.1  # seconds between two looks


class Lifeline:
    """Standard input: orders, and the news that whoever gave them is gone."""

    def __init__(self, descriptor: int) -> None:
        self.cut = False
        self.dismissed = False  # somebody sent the warden SIGTERM
        self._descriptor = descriptor
        self._pending = b""
        signal.signal(signal.SIGTERM, self._end)

    def first(self) -> dict[str, Any] | None:
        """The first order; None when there will be none."""
        while not self.cut:
            if orders := self.wait():
                return orders[0]
        return None

    def wait(self) -> list[dict[str, Any]]:
        """The orders that come within PERIOD."""
        if self.cut:
            time.sleep(PERIOD)
        elif select.select([self._descriptor], [], [], PERIOD)[0]:
            chunk = os.read(self._descriptor, 1 << 16)
            self.cut = not chunk
            self._pending += chunk
        *lines, self._pending = self._pending.split(b"\n")
        return [json.loads(line) for line in lines]

    def _end(self, *_: object) -> None:
        self.cut = self.dismissed = True


class Warden:
    """One server's owner. order: see the module."""

    def __init__(self, order: dict[str, Any], lifeline: Lifeline) -> None:
        self.mark = str(order["mark"])
        self.lifeline = lifeline
        self.code: int | None = None
        self._told = False  # the server has had SIGTERM
        self._log = Path(order["log"])
        self._secret = str(order.get("secret", "")).encode()
        self._sockets = sockets.new_folder()
        try:
            self.server = self._start(order)
        except BaseException:
            sockets.remove(self._sockets)
            raise
        say(event="started", pid=self.server.pid, sockets=str(self._sockets or ""))

    def _start(self, order: dict[str, Any]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                order["argv"],
                env=sockets.environment(self._sockets, order["env"]),
                cwd=order["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def serve(self) -> None:
        """Obeys until the tree has been ended."""
        while True:
            self.reap()
            for order in self.lifeline.wait():
                if "signal" in order:
                    self.signal(int(order["signal"]))
                else:
                    self.end(float(order["stop"]))
                    return
            if self.lifeline.cut:
                self._tell_dismissal()
                self.end(ORPHAN_GRACE)
                return

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
            self._told |= number == signal.SIGTERM
            os.kill(self.server.pid, number)

    def end(self, grace: float) -> None:
        """SIGTERM to the server, grace seconds for the tree to go, then SIGKILL to the rest.

        A server that was told before is not told again: a second SIGTERM kills one that has put
        its handlers away. One that is gone already ends nobody: then its orphans get the SIGTERM.
        With the lifeline cut, meanwhile or before, the grace is no longer than an orphan's.
        """
        began = time.monotonic()
        if self.code is not None:
            terminate(self._tree())
        elif not self._told:
            self.signal(signal.SIGTERM)
        self._wait(began + grace)
        late = [process.pid for process in self._tree()]
        limit = time.monotonic() + KILL_WAIT
        while (left := self._tree()) and time.monotonic() < limit:
            kill(left)
            self._wait(time.monotonic() + 0.5)
        self.reap()
        sockets.remove(self._sockets)
        seconds = round(time.monotonic() - began, 3)
        say(event="gone", code=self.code, survivors=late, seconds=seconds)
        mask(self._log, self._secret)

    def _tree(self) -> list[psutil.Process]:
        return marked(self.mark, os.getpid())

    def _wait(self, limit: float) -> None:
        """Until the tree is gone, or the monotonic time `limit`."""
        cut = False
        while time.monotonic() < limit:
            self.reap()
            if not self._tree():
                return
            self.lifeline.wait()
            if self.lifeline.cut and not cut:
                cut = True
                self._tell_dismissal()
                limit = min(limit, time.monotonic() + ORPHAN_GRACE)

    def _tell_dismissal(self) -> None:
        if self.lifeline.dismissed:
            say(event="dismissed")


def mask(log: Path, secret: bytes) -> None:
    """Writes asterisks over every occurrence, so that offsets into the log stay true."""
    if not secret or not log.is_file() or not log.stat().st_size:
        return
    with log.open("r+b") as file, mmap.mmap(file.fileno(), 0) as text:
        at = text.find(secret)
        while at >= 0:
            text[at : at + len(secret)] = b"*" * len(secret)
            at = text.find(secret, at)


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
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    lifeline = Lifeline(sys.stdin.fileno())
    order = lifeline.first()
    if order is None:
        return
    try:
        warden = Warden(order, lifeline)
    except (OSError, subprocess.SubprocessError) as error:
        say(event="refused", reason=str(error))
        return
    warden.serve()


if __name__ == "__main__":
    main()
