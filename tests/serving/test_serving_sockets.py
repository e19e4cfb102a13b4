"""Each server has a folder for its sockets, which goes when the server does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from serving_world import until

from acceptance.serving import sockets
from acceptance.serving.custody import Custody

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_the_next_warden_removes_what_a_killed_one_left(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And touches neither the folder of a living one nor what it does not know."""
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    other = short / "sockets-of-others"
    other.mkdir()
    make = (
        "from acceptance.serving import sockets; print(sockets.new_folder(), flush=True); input()"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", make],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(short)},
        )
        for _ in range(2)
    ]
    folders = []
    for maker in makers:
        assert maker.stdout is not None
        folders.append(Path(maker.stdout.readline().strip()))
    makers[0].kill()
    makers[0].communicate()
    mine = sockets.new_folder()
    assert mine is not None
    assert sorted(short.iterdir()) == sorted([folders[1], mine, other])
    makers[1].communicate("\n")
    sockets.sweep(short)
    assert sorted(short.iterdir()) == sorted([mine, other])
    sockets.remove(mine)


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
