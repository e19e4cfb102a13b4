"""Each server has a folder for its sockets, which goes when the server does."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from serving_world import until

from acceptance.serving import sockets
from acceptance.serving.custody import Custody

# A server that leaves a socket behind and says where.
LEAVES = """
import os, socket, time
one = socket.socket(socket.AF_UNIX)
one.bind(os.environ["VLLM_RPC_BASE_PATH"] + "/left")
print(os.environ["VLLM_RPC_BASE_PATH"], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("who", ["server", "warden"])
def test_sockets_go_with_their_server(tmp_path: Path, who: str) -> None:
    log = tmp_path / "log"
    custody = Custody([sys.executable, "-c", LEAVES], dict(os.environ), log, who, tmp_path)
    until(lambda: log.read_text().endswith("\n"))
    folder = Path(log.read_text().strip())
    assert (folder / "left").is_socket()
    assert custody.pid is not None
    server = psutil.Process(custody.pid)
    victim = server if who == "server" else server.parent()
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    custody.end(5)
    assert not folder.exists()


def test_a_folder_that_was_given_stays(tmp_path: Path) -> None:
    given = sockets.environment(tmp_path, {sockets.SOCKETS: "/run/ours"})
    assert given == {sockets.SOCKETS: "/run/ours", sockets.FOLDER: str(tmp_path)}
    assert sockets.environment(tmp_path, {})[sockets.SOCKETS] == str(tmp_path)


def test_a_socket_of_it_can_be_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the temporary folder has a long name."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = sockets.new_folder()
    assert folder is not None
    assert len(bytes(folder)) + sockets.NAME <= sockets.LONGEST
    sockets.remove(folder)
    assert not folder.exists()
    assert not list(long.iterdir())
