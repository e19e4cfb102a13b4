"""The host turns against a run: no room, no right to write, a clock that jumps, no files, a log of
gigabytes. A clear word, and nothing lost."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version
from survival_world import ALONE, outcomes, recorded, verdict

from acceptance.deployments.installed import Vllm
from acceptance.errors import InputError, ObservationError, ServerError
from acceptance.load.worker import BenchWorker
from acceptance.secrets import Redactor
from acceptance.serving import custody
from acceptance.serving.cause import root_cause
from acceptance.serving.readiness import failure
from acceptance.serving.window import read_window
from fixtures import directory, run
from reports.reading import read_results
from reports.recorder import RESULTS, Recorder, append
from reports.ruling import last_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from survival_world import World

VLLM = Vllm(Version("0.32.0"), ("vllm",), cpu=True, python=sys.executable)
ROOM = 15_000  # bytes of any file of a run, which its record outgrows half-way


def test_a_full_disk_ends_the_run_and_resuming_completes_it(world: World) -> None:
    """The size of files is limited, which fails a write as a full disk does."""
    run_dir = world.new()
    full = world.start(run_dir, *ALONE, "--run-dir", str(run_dir), room=ROOM)
    code = full.wait()
    said = full.out.read_text()
    assert code == 3
    assert "takes no more, so the run ends here: [Errno 27] File too large" in said
    assert f"--resume={run_dir}" in said
    assert "INTERNALERROR" not in said
    results = read_results(run_dir)
    assert results.problems == ()
    assert 0 < recorded(run_dir) < 39
    assert verdict(run_dir).word == "INCOMPLETE"
    again = world.start(run_dir, *ALONE, f"--resume={run_dir}")
    again.wait()
    assert verdict(run_dir).word == "SIMULATED", again.out.read_text()


def test_a_line_that_finds_no_room_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / RESULTS
    append(path, b"x" * 900)
    said = (
        "import resource, sys; from pathlib import Path; from reports.recorder import append\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "append(Path(sys.argv[1]), b'y' * 900)"
    )
    done = subprocess.run(
        [sys.executable, "-c", said, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert "[Errno 27]" in done.stderr
    assert path.read_bytes() == b"x" * 900 + b"\n"


def test_who_cannot_write_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a test, in a hook and at the end alike: as pytest's own way to end a run."""
    recorder = Recorder(tmp_path)
    recorder.lost = directory.ends(tmp_path)

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("reports.recorder.append", no_room)
    record: Any = SimpleNamespace(model_dump=lambda **_: {})
    with pytest.raises(pytest.exit.Exception, match="No space left on device") as caught:
        recorder.write(record)
    assert caught.value.returncode == 3


def test_a_full_disk_is_seen_behind_other_errors() -> None:
    """Whatever a test made of it, and nothing else is."""
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = ValueError("cannot save")
    wrapped.__cause__ = full
    assert directory._no_room(wrapped) is full
    assert directory._no_room(full) is full
    assert directory._no_room(OSError(errno.ECONNREFUSED, "refused")) is None
    assert directory._no_room(None) is None


def test_a_directory_that_takes_no_files_is_refused(tmp_path: Path) -> None:
    option = SimpleNamespace(run_dir=Path("/proc/nothing"), resume=None)
    config: Any = SimpleNamespace(option=option, rootpath=tmp_path)
    with pytest.raises(pytest.UsageError, match="the run directory cannot be written"):
        run._directory(config)
    (tmp_path / ".run.lock").mkdir()
    with pytest.raises(pytest.UsageError, match="the run directory cannot be written"):
        directory.locked(tmp_path)


def test_a_run_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    first = directory.locked(tmp_path)
    with pytest.raises(InputError, match="is being written by another run"):
        directory.locked(tmp_path)
    first.release()
    directory.locked(tmp_path).release()


@pytest.mark.parametrize("temp", ["/proc/nothing", "long"])
def test_without_temporary_files_the_client_says_why(
    temp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nowhere to make them, or a path too long for a socket."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder) if temp == "long" else temp)
    with pytest.raises(ObservationError) as caught:
        BenchWorker(VLLM, {}, tmp_path / "client.log").start()
    assert "the benchmark worker could not be started" in caught.value.happened
    assert caught.value.cause
    assert "--load-engine cli" in caught.value.hint
    assert list(folder.iterdir()) == []


def test_without_processes_a_server_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", none_left)
    with pytest.raises(ServerError) as caught:
        custody.Custody(["vllm"], {}, tmp_path / "log", "mark", tmp_path)
    assert "temporarily unavailable" in caught.value.cause


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(256, 20_000, 4096), (20_000, 20_000, 20_000)]
)
def test_open_files_are_raised_as_far_as_needed(
    soft: int, hard: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: limits.append(given))
    directory.open_files()
    assert limits[-1] == (expected, hard)


def test_too_few_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(InputError, match="64 files open here, and 4096 are needed"):
        directory.open_files()


@pytest.fixture(scope="module")
def beside(world: World) -> Iterator[dict[str, Path]]:
    """Two runs at the same time, one of them with a clock that jumps back an hour, and a server on
    this host that is nobody's of theirs."""
    foreign = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", "vllm", "serve", "--port", "8000"],
        env={"PATH": os.environ["PATH"]},
    )
    try:
        dirs = {"back": world.new(), "": world.new()}
        runs = [
            world.start(path, *ALONE, "--run-dir", str(path), clock=clock)
            for clock, path in dirs.items()
        ]
        assert [one.wait() for one in runs] == [0, 0], [one.out.read_text() for one in runs]
        assert foreign.poll() is None
        yield dirs
    finally:
        foreign.kill()
        foreign.wait()


def test_a_clock_that_jumps_back_changes_no_verdict(beside: dict[str, Path]) -> None:
    records = read_results(beside["back"]).records
    times = [record.time for record in records]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) < -3000
    end = last_end(records)
    assert end is not None
    assert end.duration > 0
    assert verdict(beside["back"]).word == "SIMULATED"


def test_runs_beside_each_other_and_a_foreign_server_leave_each_other_alone(
    beside: dict[str, Path],
) -> None:
    assert verdict(beside[""]).word == "SIMULATED"
    assert outcomes(read_results(beside[""])) == outcomes(read_results(beside["back"]))


def test_a_log_of_two_gigabytes_is_read_in_little_memory(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        file.write(b"INFO 11-24 05:42:28 [a.py:1] begin\n")
        file.seek(2 << 30)
        file.write(b"\n(EngineCore pid=1) ERROR 11-24 05:42:28 [a.py:1] RuntimeError: it broke\n")
    tracemalloc.start()
    try:
        late = read_window(log, (2 << 30) - 1000)
        told = root_cause(log)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert late.error_count == 1
    assert "it broke" in told.line
    assert peak < 8 << 20


def test_control_bytes_and_keys_of_a_log_go_no_further(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    key = "the-key-0123456789"
    log.write_bytes(
        b"\x1b[31m\x1b]0;title\x07Traceback (most recent call last):\n"
        b'  File "a.py", line 1, in load\n'
        b"ValueError: \x00\x08\x9b2J api_key=" + key.encode() + b" \xff\xfe\n"
    )
    server: Any = SimpleNamespace(
        log=log,
        api_key=key,
        command=None,
        base_url="http://x",
        custody=None,
        deployment=SimpleNamespace(name="d"),
    )
    told = str(failure(server, "ended"))
    assert "ValueError" in told
    assert key not in told
    assert not set(told) & set(map(chr, (0, 7, 8, 0x1B, 0x9B)))
    assert key not in Redactor([key])(log.read_text(errors="replace"))


def test_a_full_dev_shm_is_named() -> None:
    """As vLLM's workers die of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".log") as file:
        file.write(
            "(Worker_TP1 pid=7) Traceback (most recent call last):\n"
            '(Worker_TP1 pid=7)   File "shared_memory.py", line 98, in __init__\n'
            "(Worker_TP1 pid=7) OSError: [Errno 28] No space left on device: '/psm_1234'\n"
        )
        file.flush()
        told = root_cause(Path(file.name))
    assert "/dev/shm is full" in told.hint
