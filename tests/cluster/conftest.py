"""A Ray cluster of two nodes on this machine, each with eight made-up GPUs. Without Ray, or a C
compiler, these tests are skipped."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pynvml
import pytest
from cluster_gpus import GpuNode, build_library
from cluster_world import CLIENT, PORT

from acceptance.serving.processes import kill

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ray 2.60 asks its nodes and drivers for a token: one of this cluster's own. It looks whether it is
# to when it is imported, so this comes before the tests, which do.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
LIMIT = 300.0  # seconds in which a node must be up, on a machine that is busy besides
OF = "ACCEPTANCE_TEST_CLUSTER"  # in the environment of everything that the cluster starts


def ray_command(folder: Path, node: GpuNode, *words: str) -> None:
    program = str(Path(sys.executable).with_name("ray"))
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "SPT_NOENV": "1", OF: str(folder)}
    env = {**os.environ, **quiet, **node.env(folder)}
    subprocess.run([program, *words], check=True, timeout=LIMIT, env=env)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its temporary folder; its nodes are 127.0.0.2 and this host's own address."""
    pytest.importorskip("ray")
    folder = Path(f"/tmp/acceptance-ray-{os.getpid()}")  # short: sockets lie below it
    folder.mkdir()
    build_library(folder)
    nodes = [GpuNode(folder / f"node{number}", number) for number in range(2)]
    small = ("--num-cpus=2", "--object-store-memory=100000000")
    head = ("--head", f"--port={PORT}", f"--ray-client-server-port={CLIENT}", *small)
    try:
        head = (*head, "--include-dashboard=false", f"--temp-dir={folder}")
        ray_command(folder, nodes[0], "start", *head)
        other = (f"--address=127.0.0.1:{PORT}", "--node-ip-address=127.0.0.2", *small)
        ray_command(folder, nodes[1], "start", *other)
        yield folder
    finally:
        _end(folder)


@pytest.fixture
def gpu_nodes(cluster: Path) -> Iterator[list[GpuNode]]:
    """Both nodes' GPUs, healthy and idle."""
    nodes = [GpuNode(cluster / f"node{number}", number) for number in range(2)]
    yield nodes
    for node in nodes:
        node.set()


@pytest.fixture(scope="session")
def ray(cluster: Path) -> Iterator[Any]:
    """The module, connected as the suite connects it."""
    from acceptance.cluster.connect import connect

    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{PORT}"
    connected = connect("auto")
    yield connected
    connected.shutdown()
    del os.environ["RAY_ADDRESS"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def node(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuNode:
    """Eight idle GPUs of this process and of those that it starts."""
    made = GpuNode(tmp_path / "node", 1)
    for name, value in made.env(built).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(built / "libnvidia-ml.so.1")))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return made


def _end(folder: Path) -> None:
    """Only this cluster's: `ray stop` would end every one of this machine."""
    wanted = f"{OF}={folder}".encode()
    mine = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if wanted in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                mine.append(process)
    kill(mine)
    psutil.wait_procs(mine, timeout=20)
    shutil.rmtree(folder, ignore_errors=True)
