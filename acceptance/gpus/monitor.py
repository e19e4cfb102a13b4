"""pytest's side of the sampler process: start it, and end it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from acceptance.errors import ObservationError
from acceptance.gpus.tail import TelemetryTail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.gpus.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
MEMORY_SECONDS = 0.1
REST_SECONDS = 1.0
_READY = 30.0  # seconds to load NVML and register


class Monitor:
    """A sampler process, from the first line of its file on. path: its telemetry."""

    def __init__(
        self, uuids: Sequence[str], path: Path, mark: str = "", ahead: float = 0.0
    ) -> None:
        """Returns once events are registered and sampling has begun. mark: see Owner in whose.py.
        ahead: seconds by which this host's clock is ahead of the one that the file is to tell.
        Raises ObservationError."""
        self.path = path
        self._tail = TelemetryTail(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "acceptance.gpus.sampling"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,  # Ctrl-C is pytest's; this ends with pytest's end of the pipe
        )
        assert self._process.stdin is not None
        order = {
            "uuids": list(uuids),
            "path": str(path),
            "memory_s": MEMORY_SECONDS,
            "rest_s": REST_SECONDS,
            "pid": os.getpid(),
            "mark": mark,
            "ahead": ahead,
        }
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            told = self._first_line()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        if not told.get("ready"):
            self.stop()
            why = told.get("refused", "the sampler process did not begin")
            raise ObservationError("GPUs cannot be sampled", asked=", ".join(uuids), cause=str(why))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """Ends sampling; the file is whole afterwards. Safe to call again."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # stuck in the driver, with a lost GPU say
            self._process.kill()

    @property
    def ended(self) -> int | None:
        """The sampler's exit code; None while it lives."""
        return self._process.poll()

    def read(self, *, partly: bool = False) -> Telemetry:
        """What has been seen so far. partly: also where sampling has ended early. Raises
        ObservationError then without it: what was kept until then would look like the whole."""
        return whole(self._tail.read(), self.ended, self.path, partly=partly)

    def _first_line(self) -> dict[str, object]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _READY)[0]:
            return {"refused": f"the sampler process said nothing for {_READY:.0f} s"}
        line = self._process.stdout.readline()
        told: dict[str, object] = json.loads(line) if line.strip() else {}
        return told


def whole(found: Telemetry, ended: int | None, path: Path, *, partly: bool) -> Telemetry:
    """The telemetry, where its sampler lives or has ended on purpose. ended: its exit code. path:
    of its file. partly: in any case. Raises ObservationError."""
    if ended is not None and found.ended is None and not partly:
        raise ObservationError(f"the sampler process ended with {ended}", log=path)
    return found
