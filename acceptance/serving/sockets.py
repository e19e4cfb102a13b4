"""A folder of its own for each server's unix sockets, which is removed when the server is gone.

vLLM puts them in the temporary folder (VLLM_RPC_BASE_PATH) and leaves them there whenever an engine
is killed. A warden holds an flock of its folder; where it was killed together with pytest, nobody
is left to remove the folder, and the next warden does. Written on flock itself, because filelock
takes as long to import as half of a warden's other modules.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

SOCKETS = "VLLM_RPC_BASE_PATH"
FOLDER = "ACCEPTANCE_SOCKETS"  # the folder, also where SOCKETS names another
LONGEST = 107  # bytes of a unix socket's path
NAME = 1 + 36  # "/" and vLLM's name of a socket, a UUID
NEW, PREFIX = "acceptance-new-", "acceptance-sockets-"  # of folders not yet locked, and locked
LOCK = fcntl.LOCK_EX | fcntl.LOCK_NB


def sweep(parent: Path) -> None:
    """Removes the folders whose warden is gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, another user's, or gone meanwhile
            fd = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(fd, LOCK)
                remove(folder)
            finally:
                os.close(fd)


def new_folder() -> Path | None:
    """A folder for this user alone, short enough for sockets: in the temporary folder, else in
    /tmp; None where neither can have one. It is this process's until it ends."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        sweep(Path(parent))
        try:
            made = Path(tempfile.mkdtemp(prefix=NEW, dir=parent))
        except OSError:
            continue
        named = made.with_name(made.name.replace(NEW, PREFIX))
        if len(bytes(named)) + NAME > LONGEST:
            made.rmdir()
            continue
        try:
            # Never closed: the lock is this process's. Named when it is held, for a sweep takes
            # what nobody holds.
            fcntl.flock(os.open(made, os.O_RDONLY), LOCK)
            return made.rename(named)
        except OSError:  # no locks here: a folder all the same, which nobody sweeps
            return made
    return None


def environment(folder: Path | None, given: dict[str, str]) -> dict[str, str]:
    """The server's environment with its folder; a SOCKETS that was given stays."""
    if folder is None:
        return given
    return {SOCKETS: str(folder), **given, FOLDER: str(folder)}


def remove(folder: Path | None) -> None:
    """The folder and all in it; never an error."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
