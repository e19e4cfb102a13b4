"""What runs on each node of a cluster, in a Ray actor: one part of a server in a warden's care.

It keeps what it is told of until the driver fetches it. A driver that falls silent is taken for
dead, and so is one whose end Ray notices by ending this actor: the warden's lifeline is cut with
it. Ray may end the warden as well, so a guard stands by (see guard.py).
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.serving.here import free_ports, interface_of, take
from acceptance.serving.launcher import Ended

if TYPE_CHECKING:
    from acceptance.serving.custody import Custody
    from acceptance.serving.launcher import Part

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds without a word from the driver: with the warden's own, gone within 30
UNUSED = 300.0  # the same while it has nothing: others' agents may take their time to start
GRACE = 4.0  # seconds that a server gets to end by itself then
CHUNK = 4 << 20  # bytes of a log that are fetched at once
CPU_EVERY = 2.0  # seconds: whoever adds up CPU reads every process of the node
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class About:
    """A node. address: by which Ray knows it. interface: of that address. host: its name. boot: the
    kernel's own id, by which two names of one machine are told. ports: free ones, as asked. time:
    its clock, in seconds since the epoch."""

    address: str
    interface: str
    host: str
    boot: str
    ports: tuple[int, ...]
    time: float


@dataclass(frozen=True)
class News:
    """What became of a part. log: bytes from the offset that was asked for. cpu: CPU seconds used
    until at most CPU_EVERY ago. The rest: as Custody has it."""

    log: bytes
    cpu: float
    exited: bool
    exit_code: int | None
    lost: bool
    fate: str


class Agent:
    """One part's keeper. address: of the node. folder: the part's own, once it has one."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._custody: Custody | None = None
        self._guards: list[subprocess.Popen[bytes]] = []
        self.folder: Path | None = None
        self._heard = time.monotonic()
        self._cpu, self._cpu_due = 0.0, 0.0

    @property
    def hold(self) -> tuple[int, ...]:
        """Descriptors that last as long as a part does."""
        return ()

    @property
    def engaged(self) -> bool:
        """Whether it has anything that must end with its driver."""
        return self._custody is not None

    def about(self, ports: int) -> About:
        """This node, with so many of its free ports."""
        self._hear()
        return About(
            address=self._address,
            interface=interface_of(self._address),
            host=platform.node(),
            boot=boot_id(),
            ports=free_ports(ports, ""),
            time=time.time(),
        )

    def start(self, part: Part) -> int | None:
        """Starts the part here; its pid. Raises ServerError."""
        self._hear()
        self.folder = Path(tempfile.mkdtemp(prefix="acceptance-node-"))
        log = self.folder / "server.log"
        log.touch()
        try:
            self._custody = take(replace(part, log=log, hold=self.hold))
        except BaseException:
            self.close()
            raise
        self._guards.append(guarded(part.mark, self.folder))
        return self._custody.pid

    def news(self, offset: int) -> News:
        """What there is since the offset, in bytes of the log."""
        self._hear()
        custody = self._custody
        assert custody is not None
        exited = custody.exited  # before the log is read, so that it holds the last words
        with custody.log.open("rb") as log:
            log.seek(offset)
            text = log.read(CHUNK)
        if exited or time.monotonic() >= self._cpu_due:
            self._cpu, self._cpu_due = custody.cpu_seconds(), time.monotonic() + CPU_EVERY
        return News(
            log=text,
            cpu=self._cpu,
            exited=exited,
            exit_code=custody.exit_code,
            lost=custody.lost,
            fate=custody.fate,
        )

    def signal(self, number: int) -> None:
        """To the part's server alone."""
        self._hear()
        if self._custody is not None:
            self._custody.signal(number)

    def end(self, grace: float) -> Ended:
        """SIGTERM, grace seconds, SIGKILL."""
        self._hear()
        return self._custody.end(grace) if self._custody else Ended(None, 0.0, ())

    def close(self) -> None:
        """Forgets the log. The driver has it."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _hear(self) -> None:
        self._heard = time.monotonic()

    def mind(self, patience: float = PATIENCE) -> None:
        """Blocks while the driver is heard of, then ends the part, and this process with it.
        patience: seconds."""
        while time.monotonic() - self._heard < (patience if self.engaged else UNUSED):
            time.sleep(0.5)
        if self._custody is not None:
            self._custody.end(GRACE)
        self.close()
        os.kill(os.getpid(), signal.SIGKILL)


def guarded(mark: str, folder: Path) -> subprocess.Popen[bytes]:
    """A guard, which stands by for the end of this process, by whatever signal: the pipe tells
    it. It goes on in a process that is no child of this one."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "acceptance.cluster.guard", mark, str(folder)],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    guard.wait()
    return guard


def boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.is_file() else platform.node()
