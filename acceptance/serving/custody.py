"""pytest's side of a warden: start a server in its care, hear of it, give orders."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.errors import ServerError
from acceptance.serving import sockets
from acceptance.serving.launcher import Ended
from acceptance.serving.processes import (
    KEEP_ENVIRONMENT,
    MARK,
    OWNER,
    cpu_seconds,
    kill,
    marked,
    terminate,
    this_process,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psutil

ROOT = Path(__file__).parents[2]
LAST_WORDS = 2.0  # seconds to hear out a warden that has ended
LOST_WARDEN = "lost its warden, which somebody ended"


class Custody:
    """A server process tree in a warden's care."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        mark: str,
        cwd: Path,
        hold: Sequence[int] = (),
        secret: str = "",
    ) -> None:
        """env: the whole environment of the server. hold: descriptors that the warden keeps open
        as long as it lives, such as those of a lease. secret: is masked in the log once the server
        has ended. Raises ServerError when it cannot start."""
        self.mark = mark
        self.log = log
        self.ended_at: float | None = None  # monotonic seconds at which its end was heard of
        self.pid: int | None = None
        self.exit_code: int | None = None
        self._refused = ""
        self._dismissed = False  # somebody told the warden to end
        self._gone: Ended | None = None
        self._deaf = False  # the warden says no more
        self._sockets: Path | None = None  # the folder that the warden made for the server
        self._told = threading.Condition()
        try:
            self._warden = subprocess.Popen(
                [sys.executable, "-m", "acceptance.serving.warden"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
                pass_fds=tuple(hold),
            )
        except OSError as error:  # no file, process or memory is left for it
            raise ServerError(
                "its warden could not be started", asked=" ".join(argv), cause=str(error), log=log
            ) from error
        marks = {MARK: mark, OWNER: this_process(), **KEEP_ENVIRONMENT}
        self._order(
            {
                "argv": list(argv),
                "env": {**env, **marks},
                "cwd": str(cwd),
                "log": str(log),
                "mark": mark,
                "secret": secret,
            }
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            with self._told:
                self._told.wait_for(lambda: self.pid is not None or self._deaf, timeout=30)
        except BaseException:
            self._cut()
            raise
        if self.pid is None:
            self._cut()
            raise ServerError(
                "the server could not be started",
                asked=" ".join(argv),
                cause=self._refused or "the warden did not answer",
                log=log,
            )

    @property
    def exited(self) -> bool:
        """Whether the API server has ended; its engines may still be there."""
        return self.exit_code is not None or self._dismissed or self._warden.poll() is not None

    @property
    def lost(self) -> bool:
        """Whether somebody else ended the warden, and the server with it."""
        if self._dismissed:
            return True
        if self._warden.poll() is None:
            return False
        self._listener.join(LAST_WORDS)  # what it still said before it ended
        return self._deaf and self.exit_code is None and self._gone is None

    @property
    def fate(self) -> str:
        """How the API server ended, for people."""
        if self.lost:
            return LOST_WARDEN
        if self.exit_code is not None:
            return f"ended with exit code {self.exit_code}"
        return "ended without telling how" if self.exited else "lives"

    def processes(self) -> list[psutil.Process]:
        """The living processes of the tree."""
        return marked(self.mark, self._warden.pid if self._warden.poll() is None else None)

    def cpu_seconds(self) -> float:
        """CPU seconds used so far by the living processes of the tree and their ended children."""
        return cpu_seconds(self.processes())

    def fetch(self) -> None:
        """Its log is written here."""

    def signal(self, number: int) -> None:
        """A signal to the server alone, not to its engines."""
        self._order({"signal": number})

    def end(self, grace: float) -> Ended:
        """Ends the tree: SIGTERM, grace seconds, SIGKILL. Safe to call again."""
        if self._gone is not None:
            return self._gone
        self._order({"stop": grace})
        with self._told:
            self._told.wait_for(lambda: self._gone is not None or self._deaf, timeout=grace + 15)
        if self._gone is None:  # the warden is dead or stuck: do its work from here
            self._dismissed = self._deaf
            self._gone = self._sweep(grace)
        self._cut()
        return self._gone

    def wait_exit(self, seconds: float) -> int | None:
        """Waits for the API server to end by itself; its exit code, or None when it did not."""
        with self._told:
            self._told.wait_for(lambda: self.exit_code is not None or self._deaf, timeout=seconds)
        return self.exit_code

    def _sweep(self, grace: float) -> Ended:
        began = time.monotonic()
        self._warden.kill()
        terminate(marked(self.mark))
        while marked(self.mark) and time.monotonic() - began < grace:
            time.sleep(0.1)
        late = tuple(process.pid for process in marked(self.mark))
        limit = time.monotonic() + 10
        while (left := marked(self.mark)) and time.monotonic() < limit:
            kill(left)
            time.sleep(0.1)
        sockets.remove(self._sockets)
        return Ended(self.exit_code, time.monotonic() - began, late)

    def _cut(self) -> None:
        """Cuts the warden's lifeline and waits for its end."""
        with contextlib.suppress(OSError):
            if self._warden.stdin:
                self._warden.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._warden.wait(timeout=5)

    def _order(self, order: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):  # dead, or closed by an earlier end
            assert self._warden.stdin is not None
            self._warden.stdin.write(json.dumps(order).encode() + b"\n")
            self._warden.stdin.flush()

    def _listen(self) -> None:
        try:
            assert self._warden.stdout is not None
            for line in self._warden.stdout:
                self._hear(json.loads(line))
        finally:
            with self._told:
                self._deaf = True
                self._note_end()
                self._told.notify_all()

    def _hear(self, event: dict[str, Any]) -> None:
        with self._told:
            match event["event"]:
                case "started":
                    self.pid = event["pid"]
                    self._sockets = Path(event["sockets"]) if event["sockets"] else None
                case "refused":
                    self._refused = event["reason"]
                case "dismissed":
                    self._dismissed = True
                    self._note_end()
                case "exited":
                    self.exit_code = event["code"]
                    self._note_end()
                case "gone":
                    survivors = tuple(event["survivors"])
                    self._gone = Ended(event["code"], event["seconds"], survivors)
            self._told.notify_all()

    def _note_end(self) -> None:
        self.ended_at = self.ended_at or time.monotonic()
