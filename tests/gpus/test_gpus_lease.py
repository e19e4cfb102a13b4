"""Nobody shares a leased GPU, and a lease dies with its holder. Across real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pynvml
import pytest
from gpus_fake_nvml import GIB, FakeGpu, FakePynvml, b200s, h200s

import acceptance
from acceptance.gpus import whose as whose_module
from acceptance.gpus.lease import busy, lease, survey
from acceptance.gpus.lock import Holder, LeaseRefused, LockFile, lock_directory
from acceptance.gpus.nvml import Nvml, open_nvml
from acceptance.gpus.probe import Gpu, Unobservable

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = [str(Path(acceptance.__file__).parents[1]), str(Path(__file__).parent)]
HOLD = """
import sys
from pathlib import Path
from gpus_fake_nvml import FakePynvml, b200s
from acceptance.gpus.lease import lease
from acceptance.gpus.nvml import open_nvml
directory, total, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
probe = open_nvml(FakePynvml(b200s(total)))
with lease(probe.gpus(), probe, count=count, run_dir="runs/other", directory=directory) as held:
    print(held.indexes, flush=True)
    if sys.argv[4:] == ["warden"]:  # a child that outlives its parent and shares the lease
        import subprocess
        child = subprocess.Popen(["sleep", "600"], pass_fds=held.fds, stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
    sys.stdin.read()
"""
# A marker that exists already, because another process made it, raises.
CONTEND = """
import sys
from pathlib import Path
from gpus_fake_nvml import FakePynvml, b200s
from acceptance.gpus.lease import lease
from acceptance.gpus.nvml import open_nvml
directory = Path(sys.argv[1])
probe = open_nvml(FakePynvml(b200s(4)))
for _ in range(3):
    with lease(probe.gpus(), probe, count=3, timeout=300, directory=directory) as held:
        markers = [directory / f"{gpu.uuid}.marker" for gpu in held.gpus]
        for marker in markers:
            marker.touch(exist_ok=False)
        for marker in markers:
            marker.unlink()
"""


def host(gpus: list[FakeGpu]) -> tuple[Nvml, list[Gpu]]:
    probe = open_nvml(FakePynvml(gpus))
    assert isinstance(probe, Nvml)
    return probe, [gpu for gpu in probe.gpus() if not isinstance(gpu, Unobservable)]


@contextmanager
def another_process(
    directory: Path, total: int, count: int, *more: str
) -> Iterator[subprocess.Popen[str]]:
    """Holds `count` of `total` B200s until its standard input ends. Its output: the indexes."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), str(total), str(count), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)},
    )
    try:
        yield holder
    finally:
        holder.kill()
        holder.wait()
        for pipe in (holder.stdin, holder.stdout):
            if pipe is not None:
                pipe.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_runs_share_a_host_but_no_gpu(tmp_path: Path) -> None:
    probe, gpus = host(b200s(8))
    with another_process(tmp_path, 8, 4) as other:
        assert line(other) == "0,1,2,3"
        with lease(gpus, probe, count=4, directory=tmp_path) as held:
            assert held.indexes == "4,5,6,7"
            assert held.cuda_visible_devices == ",".join(gpu.uuid for gpu in gpus[4:])


def test_all_or_nothing_and_the_holder_is_named(tmp_path: Path) -> None:
    probe, gpus = host(b200s(8))
    with another_process(tmp_path, 8, 4) as other:
        line(other)
        with (
            pytest.raises(LeaseRefused) as refused,
            lease(gpus, probe, run_dir="runs/mine", directory=tmp_path),
        ):
            pass
        text = str(refused.value)
        assert "4 of 8 GPUs can be leased" in text
        me = psutil.Process().username()
        assert f"leased by pid {other.pid} of {me} on " in text
        assert ", run runs/other, since 20" in text
        assert gpus[4].uuid not in text
        assert survey(gpus[4:], probe, directory=tmp_path) == {}, "half of a lease was kept"


def test_waiting_ends_when_the_other_run_does(tmp_path: Path) -> None:
    probe, gpus = host(b200s(4))
    with another_process(tmp_path, 4, 4) as other:
        line(other)
        assert other.stdin is not None
        threading.Timer(0.3, other.stdin.close).start()
        with lease(gpus, probe, timeout=60, directory=tmp_path) as held:
            assert held.indexes == "0,1,2,3"


def test_a_killed_holders_lease_is_free_at_once(tmp_path: Path) -> None:
    probe, gpus = host(b200s(4))
    with another_process(tmp_path, 4, 4) as other:
        line(other)
        other.send_signal(signal.SIGKILL)
        other.wait()
        with lease(gpus, probe, directory=tmp_path) as held:
            assert len(held.gpus) == 4


def test_a_warden_keeps_the_lease_of_a_killed_run(tmp_path: Path) -> None:
    probe, gpus = host(b200s(4))
    with another_process(tmp_path, 4, 4, "warden") as other:
        line(other)
        warden = psutil.Process(int(line(other)))
        try:
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert set(survey(gpus, probe, directory=tmp_path)) == {gpu.uuid for gpu in gpus}
        finally:
            warden.kill()
        with lease(gpus, probe, timeout=60, directory=tmp_path) as held:
            assert len(held.gpus) == 4


def test_memory_that_a_killed_run_left_gets_time_to_return(tmp_path: Path) -> None:
    fakes = b200s(4)
    probe, gpus = host(fakes)
    with another_process(tmp_path, 4, 4) as other:
        line(other)
        other.send_signal(signal.SIGKILL)
        other.wait()
    fakes[1].taken = 120 * GIB
    with (
        pytest.raises(LeaseRefused) as refused,
        lease(gpus, probe, settle=0, directory=tmp_path),
    ):
        pass
    assert f"its last lease was never given back: pid {other.pid}" in str(refused.value)

    def returned() -> None:
        fakes[1].taken = 0

    threading.Timer(0.3, returned).start()
    with lease(gpus, probe, settle=60, directory=tmp_path) as held:
        assert len(held.gpus) == 4


def test_many_processes_never_meet_on_a_gpu(tmp_path: Path) -> None:
    """Three of four GPUs each, so that two can never both be served, over and over."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CONTEND, str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)},
        )
        for _ in range(4)
    ]
    ended = [(worker.communicate()[1], worker.returncode) for worker in workers]
    assert ended == [("", 0)] * 4


def test_leases_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    probe, gpus = host(b200s(2))
    with lease(gpus[:1], probe, directory=tmp_path):
        with (
            pytest.raises(LeaseRefused, match="leased by pid"),
            lease(gpus[:1], probe, directory=tmp_path),
        ):
            pass
        with lease(gpus[1:], probe, directory=tmp_path) as held:
            assert held.indexes == "1"
    with lease(gpus, probe, directory=tmp_path) as held:
        assert held.indexes == "0,1"


def test_a_lease_ends_with_an_exception_in_its_block(tmp_path: Path) -> None:
    probe, gpus = host(b200s(1))
    with pytest.raises(ZeroDivisionError), lease(gpus, probe, directory=tmp_path):
        raise ZeroDivisionError
    assert survey(gpus, probe, directory=tmp_path) == {}
    assert LockFile(tmp_path, gpus[0].uuid).holder() is None


def test_more_than_the_pool_is_refused(tmp_path: Path) -> None:
    probe, gpus = host(b200s(2))
    with (
        pytest.raises(LeaseRefused, match="4 GPUs are asked for and 2"),
        lease(gpus, probe, count=4, directory=tmp_path),
    ):
        pass


def test_none_is_a_lease_too(tmp_path: Path) -> None:
    probe, _ = host([])
    with lease([], probe, directory=tmp_path) as held:
        assert held.cuda_visible_devices == ""


def test_a_foreign_process_is_named(tmp_path: Path) -> None:
    fakes = h200s(2)
    fakes[0].taken, fakes[0].processes = 130 * GIB, [(os.getpid(), 130 * GIB)]
    probe, gpus = host(fakes)
    with pytest.raises(LeaseRefused) as refused, lease(gpus, probe, directory=tmp_path):
        pass
    text = str(refused.value)
    assert f"{gpus[0]}: 130.0 GiB in use by pid {os.getpid()} (" in text
    assert "130.0 GiB)" in text
    assert gpus[1].uuid not in text
    with lease(gpus, probe, count=1, directory=tmp_path) as held:
        assert held.indexes == "1"


def test_a_process_whose_memory_is_not_told_is_still_foreign() -> None:
    fakes = h200s(1)
    fakes[0].processes = [(999_999_999, None)]
    probe, gpus = host(fakes)
    assert "pid 999999999 (" in str(busy(gpus[0], probe))


def test_pids_are_looked_up_only_where_they_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = h200s(1)
    fakes[0].taken, fakes[0].processes = 9 * GIB, [(os.getpid(), None)]
    probe, gpus = host(fakes)
    name = psutil.Process().name()
    monkeypatch.setattr(whose_module, "sees_host_pids", lambda: True)
    assert f"pid {os.getpid()} ({name} of " in str(busy(gpus[0], probe))
    monkeypatch.setattr(whose_module, "sees_host_pids", lambda: False)
    assert f"pid {os.getpid()} (a PID of the host, which this container cannot name)" in str(
        busy(gpus[0], probe)
    )


def test_memory_in_use_by_nobody_that_shows() -> None:
    fakes = h200s(1)
    fakes[0].taken = 3 * GIB
    probe, gpus = host(fakes)
    assert busy(gpus[0], probe) == (
        "3.0 GiB in use by no process that NVML shows; it may be one outside this container"
    )


@pytest.mark.parametrize("memory_v2", [True, False])
def test_an_idle_gpu_is_idle_whichever_memory_query_answers(memory_v2: bool) -> None:
    for fake in (h200s(1)[0], b200s(1)[0]):
        probe = open_nvml(FakePynvml([fake], memory_v2=memory_v2))
        assert isinstance(probe, Nvml)
        (gpu,) = probe.gpus()
        assert isinstance(gpu, Gpu)
        assert busy(gpu, probe) is None
        fake.taken = 3 * GIB
        assert busy(gpu, probe) is not None


def test_processes_may_be_hidden_but_memory_must_be_seen() -> None:
    fakes = h200s(1)
    probe, gpus = host(fakes)
    fakes[0].errors["nvmlDeviceGetComputeRunningProcesses"] = pynvml.NVML_ERROR_NO_PERMISSION
    assert busy(gpus[0], probe) is None
    fakes[0].taken = 3 * GIB
    assert "by whom cannot be told" in str(busy(gpus[0], probe))
    fakes[0].lost = True
    assert "NVML_ERROR_GPU_IS_LOST" in str(busy(gpus[0], probe))


def test_directory_is_open_to_all_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        directory = lock_directory({"ACCEPTANCE_LOCKS": str(tmp_path / "locks")})
        lock = LockFile(directory, "GPU-0")
        assert lock.try_acquire()
        lock.release()
    finally:
        os.umask(umask)
    assert directory.stat().st_mode & 0o7777 == 0o1777
    assert lock.path.stat().st_mode & 0o777 == 0o666
    assert [path.name for path in directory.iterdir()] == ["GPU-0.lock"], "temporary files stay"


def test_a_directory_of_the_users_own_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert lock_directory({"ACCEPTANCE_LOCKS": str(tmp_path)}) == tmp_path
    assert tmp_path.stat().st_mode & 0o7777 == 0o700


def test_default_directory_is_the_same_for_every_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda _path: True)  # so that the real one is not made
    monkeypatch.setenv("TMPDIR", "/job/17")
    assert lock_directory(os.environ) == Path("/tmp/deepseek-acceptance-locks")


def test_a_directory_that_cannot_be_used_says_how_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LeaseRefused, match="cannot be used") as refused:
        lock_directory({"ACCEPTANCE_LOCKS": str(tmp_path / "file" / "locks")})
    assert "ACCEPTANCE_LOCKS" in str(refused.value)


def test_a_lock_file_that_was_cleaned_away_is_no_way_around(tmp_path: Path) -> None:
    """After a cleaner removed the file, the next holder and the one after it still exclude each
    other, because both lock the file that has the name."""
    first, second, third = (LockFile(tmp_path, "GPU-0") for _ in range(3))
    assert first.try_acquire()
    first.path.unlink()
    assert second.try_acquire()
    assert not third.try_acquire()
    second.release()
    first.release()


def test_a_symbolic_link_in_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "GPU-0.lock").symlink_to(tmp_path / "target")
    with pytest.raises(LeaseRefused, match="cannot be used"):
        LockFile(tmp_path, "GPU-0").try_acquire()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become two users")
def test_two_users_share_the_directory_but_no_gpu() -> None:
    """In a sticky directory, with the other user's file already there, as on a shared host."""
    directory = Path(tempfile.mkdtemp())  # pytest's own is closed to other users

    def as_user(uid: int, *, name: str = "GPU-0") -> bool:
        child = os.fork()
        if child == 0:
            taken = 2
            try:
                os.setuid(uid)
                lock = LockFile(directory, name)
                taken = int(lock.try_acquire())
                if taken:
                    lock.hold_as(Holder.this_process(f"runs/{uid}"))
            finally:
                os._exit(taken)  # without release: the name stays, as after a kill
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, 1)
        return os.waitstatus_to_exitcode(status) == 1

    try:
        directory.chmod(0o1777)
        assert as_user(12_001)
        assert as_user(12_002), "a file that another user made cannot be locked"
        mine = LockFile(directory, "GPU-0")
        assert mine.try_acquire()
        left = mine.holder()
        assert left is not None
        assert left.run_dir == "runs/12002"
        assert not as_user(12_001)
        mine.release()
        assert as_user(12_001)
    finally:
        shutil.rmtree(directory)
