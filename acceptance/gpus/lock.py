"""One lock file per GPU: an exclusive flock that the kernel drops when its last holder dies.

Written on flock itself: filelock refuses another user's lock file in a sticky directory, which is
what two users of one host share, and where flock is missing it falls back to a file that stays
behind after a SIGKILL. Linux only, as vLLM is.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from acceptance.errors import AcceptanceError

if TYPE_CHECKING:
    from collections.abc import Mapping


class LeaseRefused(AcceptanceError):
    """GPUs that were asked for cannot be had now; the message names who or what is in the way."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as it wrote itself down. pid: in the holder's own container, if it has one.
    since: ISO 8601, UTC."""

    pid: int
    user: str
    host: str
    run_dir: str
    since: str

    @classmethod
    def this_process(cls, run_dir: Path | str) -> Self:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        user = psutil.Process().username()  # also answers for a uid without a passwd entry
        return cls(os.getpid(), user, socket.gethostname(), str(run_dir), now)

    def __str__(self) -> str:
        run = f", run {self.run_dir}" if self.run_dir else ""
        return f"pid {self.pid} of {self.user} on {self.host}{run}, since {self.since}"


def lock_directory(environ: Mapping[str, str]) -> Path:
    """$ACCEPTANCE_LOCKS, else a directory that every user and every job of this host shares.

    Made when missing, with mode 1777. /tmp and not $TMPDIR: a batch system gives each job its own,
    and then two runs would not see each other. Containers that share GPUs must mount one directory
    and name it in ACCEPTANCE_LOCKS. Raises LeaseRefused.
    """
    named = environ.get("ACCEPTANCE_LOCKS")
    shared = Path("/tmp")
    base = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    directory = Path(named) if named else base / "deepseek-acceptance-locks"
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o1777)  # mkdir's own mode is cut by the umask
    except OSError as error:
        if not directory.is_dir():  # else another user made it in this moment, and opens it to all
            raise _unusable(directory, error) from error
    return directory


def _unusable(path: Path, error: OSError) -> LeaseRefused:
    return LeaseRefused(
        f"The GPU locks in {path} cannot be used: {error.strerror}",
        hint="name a directory that all users of these GPUs can write to in ACCEPTANCE_LOCKS",
    )


class LockFile:
    """An exclusive lock with its holder's name inside. Not reentrant; two objects of one process
    exclude each other like two processes.

    The descriptor is not inherited by exec. A process that is handed it on purpose (`pass_fds`)
    shares the lock, so that it lasts until both are dead or one of them calls release().
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"{name}.lock"
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.path} is not held")
        return self._fd

    def try_acquire(self) -> bool:
        """Takes the lock if it is free. The name of a former holder stays until hold_as or release.

        Raises LeaseRefused where the file cannot be used at all.
        """
        try:
            while True:
                fd = self._opened()
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                    return False
                if self._is_named(fd):
                    self._fd = fd
                    return True
                os.close(fd)  # something cleaned the directory between open and lock
        except OSError as error:
            raise _unusable(self.path, error) from error

    def holder(self) -> Holder | None:
        """Who wrote itself down last: the present holder, or one that died without releasing."""
        try:
            return Holder(**json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):
            return None  # never held, released, or being written

    def hold_as(self, holder: Holder) -> None:
        self._write(json.dumps(asdict(holder)))

    def release(self, *, keep_name: bool = False) -> None:
        """Gives the lock back, also from under processes that share it. keep_name: leave a dead
        holder's name for the next to read."""
        if not keep_name:
            self._write("")
        fd, self._fd = self.fd, None
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

    def _write(self, text: str) -> None:
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text.encode(), 0)

    def _opened(self) -> int:
        """Opens the file without O_CREAT: Linux refuses that for another user's file in a sticky
        directory (fs.protected_regular). A new file is linked into place once all may write it."""
        while True:
            try:
                return os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                fd, made = tempfile.mkstemp(dir=self.path.parent)
                try:
                    os.fchmod(fd, 0o666)
                    os.link(made, self.path)
                except FileExistsError:
                    pass  # another process was first; open its file
                finally:
                    os.close(fd)
                    Path(made).unlink()

    def _is_named(self, fd: int) -> bool:
        held = os.fstat(fd)
        try:
            named = self.path.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(held.st_mode) and os.path.samestat(held, named)
