"""A folder of its own for each server's unix sockets, which is removed when the server is gone.

vLLM puts them in the temporary folder (VLLM_RPC_BASE_PATH) and leaves them there whenever an engine
is killed. A warden holds the lock of its folder; where it was killed together with pytest, nobody
is left to remove the folder, and the next warden does.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

SOCKETS = "VLLM_RPC_BASE_PATH"
FOLDER = "ACCEPTANCE_SOCKETS"  # the folder, also where SOCKETS names another
LONGEST = 107  # bytes of a unix socket's path
NAME = 1 + 36  # "/" and vLLM's name of a socket, a UUID
PREFIX = "acceptance-sockets-"
HELD = "held"
_held: list[FileLock] = []  # for as long as this process lives


def sweep(parent: Path) -> None:
    """Removes the folders whose warden is gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        # Timeout: in use. OSError: another user's.
        with contextlib.suppress(Timeout, OSError):
            if (folder / HELD).exists():
                with FileLock(folder / HELD, blocking=False):
                    remove(folder)


def new_folder() -> Path | None:
    """A folder for this user alone, short enough for sockets: in the temporary folder, else in
    /tmp; None where neither can have one. It is this process's until it ends."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        sweep(Path(parent))
        try:
            made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError:
            continue
        if len(bytes(made)) + NAME > LONGEST:
            made.rmdir()
            continue
        _hold(made)
        return made
    return None


def _hold(folder: Path) -> None:
    """Nobody else's sweep takes the folder while this process lives. The lock gets its name when
    it is held: one that is not yet would be taken for a dead warden's."""
    with contextlib.suppress(OSError, NotImplementedError):  # nobody sweeps it then
        lock = FileLock(folder / "new")
        lock.acquire()
        _held.append(lock)
        (folder / "new").rename(folder / HELD)


def environment(folder: Path | None, given: dict[str, str]) -> dict[str, str]:
    """The server's environment with its folder; a SOCKETS that was given stays."""
    if folder is None:
        return given
    return {SOCKETS: str(folder), **given, FOLDER: str(folder)}


def remove(folder: Path | None) -> None:
    """The folder and all in it; never an error."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
