"""A server's tree ends with whoever it was started for, however that ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from serving_world import GONE, Death, Killing, kill_owners, lives, told_apart, until

from acceptance.errors import ServerError
from acceptance.serving.custody import Custody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from acceptance.serving.server import Server

ROOT = Path(__file__).parents[2]
STUBBORN = ("ignores-sigterm", "leaves-orphan", "forgets-environment")


DEATHS = {
    "SIGKILL while serving": Killing(signal.SIGKILL, "serving", STUBBORN),
    "SIGKILL while starting": Killing(signal.SIGKILL, "starting", ("silent-start", *STUBBORN[:2])),
    "SIGKILL while ending": Killing(signal.SIGKILL, "ending", STUBBORN),
    "SIGTERM while serving": Killing(signal.SIGTERM, "serving", ("leaves-orphan",)),
    "SIGINT while starting": Killing(signal.SIGINT, "starting", ("silent-start",)),
}


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Death]:
    return kill_owners(DEATHS, tmp_path_factory.mktemp("deaths"))


@pytest.mark.parametrize("name", DEATHS)
def test_nothing_outlives_the_owner(deaths: dict[str, Death], name: str) -> None:
    """Engines, workers, orphans in other sessions and the warden, SIGTERM ignored or not."""
    death = deaths[name]
    assert len(death.tree) >= (2 if DEATHS[name].stage == "starting" else 4)
    assert death.late == ()


def test_ending_leaves_nobody(serving: Callable[..., Server]) -> None:
    server = serving()
    custody = server.custody
    assert custody is not None
    tree = custody.processes()
    ended = custody.end(20)
    assert (ended.code, ended.survivors) == (0, ())
    assert told_apart(tree) == []
    assert len(tree) == 3
    assert custody.end(20) is ended


def test_ending_kills_who_stays_and_names_them(serving: Callable[..., Server]) -> None:
    """Those that left the session, lost their parents or their environment, or ignore SIGTERM."""
    custody = serving(*STUBBORN).custody
    assert custody is not None
    tree = custody.processes()
    ended = custody.end(0.5)
    assert set(ended.survivors) == {process.pid for process in tree}
    assert len(tree) == 4
    assert told_apart(tree) == []
    assert ended.code == -signal.SIGKILL


def test_an_orphan_of_a_clean_shutdown_is_a_survivor(serving: Callable[..., Server]) -> None:
    custody = serving("leaves-orphan").custody
    assert custody is not None
    tree = {process.pid for process in custody.processes()}
    ended = custody.end(1.5)
    assert ended.code == 0
    assert len(ended.survivors) == 1
    assert set(ended.survivors) < tree


def test_engines_of_a_killed_server_are_asked_to_end(serving: Callable[..., Server]) -> None:
    """They outlive it (vllm#55510), and nobody else tells them: an hour's grace is not waited."""
    custody = serving().custody
    assert custody is not None
    assert custody.pid is not None
    os.kill(custody.pid, signal.SIGKILL)
    assert custody.wait_exit(20) == -signal.SIGKILL
    assert custody.exited
    assert custody.fate == "ended with exit code -9"
    engines = custody.processes()
    assert len(engines) == 2
    assert custody.end(3600).survivors == ()
    assert told_apart(engines) == []


def test_a_warden_that_gets_sigterm_ends_the_tree(serving: Callable[..., Server]) -> None:
    custody = serving().custody
    assert custody is not None
    tree, warden = custody.processes(), _warden(custody)
    warden.terminate()
    assert until(lambda: not told_apart([*tree, warden]), GONE)
    ended = custody.end(3600)
    assert (ended.code, ended.survivors) == (0, ())


def test_a_killed_warden_is_stood_in_for(serving: Callable[..., Server]) -> None:
    """Its death is the server's; what then stays is ended from here, without waiting for it."""
    custody = serving("ignores-sigterm", "leaves-orphan").custody
    assert custody is not None
    tree, warden = custody.processes(), _warden(custody)
    warden.kill()
    assert until(lambda: custody.exited)
    assert "warden" in custody.fate
    assert custody.wait_exit(3600) is None
    assert custody.end(0.5).survivors != ()
    assert told_apart(tree) == []


def test_a_killed_warden_takes_a_healthy_server_along(serving: Callable[..., Server]) -> None:
    custody = serving().custody
    assert custody is not None
    tree = custody.processes()
    _warden(custody).kill()
    assert until(lambda: not told_apart(tree), GONE)
    assert custody.end(3600).survivors == ()


def test_a_lease_lasts_as_long_as_the_warden(serving: Callable[..., Server]) -> None:
    """Its descriptors are held by the warden, and by no process of the server."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    custody = serving(fds=[write]).custody
    assert custody is not None
    os.close(write)
    pipe = f"pipe:[{os.fstat(read).st_ino}]"
    assert pipe in _open_files(_warden(custody).pid)
    assert all(pipe not in _open_files(process.pid) for process in custody.processes())
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    custody.end(20)
    assert os.read(read, 1) == b""
    os.close(read)


@pytest.mark.parametrize(
    ("argv", "cause"),
    [
        (["/no/such/program"], "No such file or directory"),
        ([str(ROOT)], "Permission denied"),
    ],
)
def test_what_cannot_be_started_says_why(argv: list[str], cause: str, tmp_path: Path) -> None:
    with pytest.raises(ServerError) as caught:
        Custody(argv, {}, tmp_path / "log", str(tmp_path), tmp_path)
    assert cause in caught.value.cause
    assert caught.value.asked == argv[0]
    assert [child for child in _wardens() if lives(child)] == []


@pytest.mark.parametrize("size", [0, 5_000_000])
def test_a_secret_in_the_log_is_masked_and_offsets_stay_true(tmp_path: Path, size: int) -> None:
    log = tmp_path / "log"
    said = f"print('x' * {size}, 'the-key,the-key', 'end', sep='|', flush=True)"
    custody = Custody(
        [sys.executable, "-S", "-c", said], {}, log, str(tmp_path), tmp_path, secret="the-key"
    )
    assert custody.wait_exit(20) == 0
    custody.end(20)
    assert log.read_text() == "x" * size + "|*******,*******|end\n"


def test_the_environment_is_what_was_given_and_the_marks(tmp_path: Path) -> None:
    log = tmp_path / "log"
    custody = Custody(["/usr/bin/env"], {"A": "1"}, log, str(tmp_path), tmp_path)
    assert custody.wait_exit(20) == 0
    custody.end(20)
    names = {line.partition("=")[0] for line in log.read_text().splitlines()}
    marks = {"ACCEPTANCE_SERVER", "ACCEPTANCE_OWNER", "SPT_NOENV"}
    assert names == {"A", *marks, "ACCEPTANCE_SOCKETS", "VLLM_RPC_BASE_PATH"}


def _wardens() -> Iterator[psutil.Process]:
    for child in psutil.Process().children():
        if lives(child) and "acceptance.serving.warden" in child.cmdline():
            yield child


def _warden(custody: Custody) -> psutil.Process:
    assert custody.pid is not None
    parent = psutil.Process(custody.pid).parent()
    assert parent is not None
    assert parent in list(_wardens())
    return parent


def _open_files(pid: int) -> set[str]:
    return {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
