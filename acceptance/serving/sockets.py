"""A folder of its own for each server's unix sockets, which is removed when the server is gone.

vLLM puts them in the temporary folder (VLLM_RPC_BASE_PATH) and leaves them there whenever an engine
is killed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

SOCKETS = "VLLM_RPC_BASE_PATH"
FOLDER = "ACCEPTANCE_SOCKETS"  # the folder, also where SOCKETS names another
LONGEST = 107  # bytes of a unix socket's path
NAME = 1 + 36  # "/" and vLLM's name of a socket, a UUID


def new_folder() -> Path | None:
    """A folder for this user alone, short enough for sockets: in the temporary folder, else in
    /tmp; None where neither can have one."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        try:
            made = Path(tempfile.mkdtemp(prefix="sockets-", dir=parent))
        except OSError:
            continue
        if len(bytes(made)) + NAME <= LONGEST:
            return made
        made.rmdir()
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
