"""The checkpoint is generated once, and what was not finished is never taken for one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from acceptance.errors import InputError
from acceptance.rehearsal import checkpoint
from acceptance.rehearsal.checkpoint import ensure_checkpoint

ROOT = Path(__file__).parents[2]
# Stands in for vLLM's interpreter: `stub -m MODULE OUT CORPUS`. Counts its runs, and does with OUT
# what STUB says.
STUB = f"""#!{sys.executable} -S
import os, sys, time
flag, module, out, corpus = sys.argv[1:]
assert (flag, os.path.isfile(corpus)) == ("-m", True)
assert os.environ["HF_HUB_OFFLINE"] == "1"
with open(os.environ["STUB_RUNS"], "a") as runs:
    runs.write(f"{{os.getpid()}} {{module}}\\n")
does = os.environ.get("STUB", "")
if does == "makes nothing":
    sys.exit()
os.mkdir(out)
with open(os.path.join(out, "config.json"), "w") as config:
    config.write("half")
    config.flush()
    if does == "fails":
        sys.exit("Traceback (most recent call last):\\nModuleNotFoundError: no torch")
    if does == "fails mutely":
        sys.exit(3)
    if does == "hangs":
        time.sleep(600)
    time.sleep(0.2)
    config.seek(0)
    config.write("whole")
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    program = tmp_path / "python"
    program.write_text(STUB)
    program.chmod(0o755)
    monkeypatch.setenv("STUB_RUNS", str(tmp_path / "runs"))
    return str(program)


def runs(tmp_path: Path) -> int:
    file = tmp_path / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_it_is_generated_once(stub: str, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    made = ensure_checkpoint(stub, cache)
    assert (made / "config.json").read_text() == "whole"
    assert ensure_checkpoint(stub, cache) == made
    assert ensure_checkpoint("/not/needed/any/more", cache) == made
    assert runs(tmp_path) == 1
    assert folders(cache) == [made]


def test_two_that_want_it_at_once_share_it(stub: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: ensure_checkpoint(stub, tmp_path / "c"), range(3)))
    assert len(set(made)) == 1
    assert runs(tmp_path) == 1


def test_the_cache_can_be_put_elsewhere(
    stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCEPTANCE_CACHE", str(tmp_path / "elsewhere"))
    assert ensure_checkpoint(stub).parent == tmp_path / "elsewhere"


def test_another_generator_makes_another_checkpoint(
    stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an old cache is never taken for what today's code would make."""
    made = [ensure_checkpoint(stub, tmp_path / "c")]
    for name in ("MAKER", "CORPUS"):
        changed = tmp_path / name
        changed.write_bytes(getattr(checkpoint, name).read_bytes() + b"\n")
        monkeypatch.setattr(checkpoint, name, changed)
        made.append(ensure_checkpoint(stub, tmp_path / "c"))
    assert len(set(made)) == 3
    assert sorted(folders(tmp_path / "c")) == sorted(made)


@pytest.mark.parametrize(
    ("does", "cause"),
    [
        ("fails", "ModuleNotFoundError: no torch"),
        ("fails mutely", "exit code 3"),
        ("makes nothing", "exit code 0"),
    ],
)
def test_a_failure_says_why_and_leaves_nothing(
    stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, cause: str
) -> None:
    monkeypatch.setenv("STUB", does)
    with pytest.raises(InputError, match="could not be generated") as caught:
        ensure_checkpoint(stub, tmp_path / "c")
    assert caught.value.cause == cause
    assert stub in caught.value.asked
    assert "./accept rehearse" in caught.value.hint
    assert folders(tmp_path / "c") == []
    monkeypatch.delenv("STUB")
    assert ensure_checkpoint(stub, tmp_path / "c").is_dir()


def test_an_interpreter_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ensure_checkpoint("/no/such/python", tmp_path / "c")
    assert "No such file or directory" in caught.value.cause


def test_a_killed_generation_is_begun_anew(stub: str, tmp_path: Path) -> None:
    """Though its child lives on, and what it wrote lies there."""
    cache = tmp_path / "c"
    code = f"""
from pathlib import Path
from acceptance.rehearsal.checkpoint import ensure_checkpoint
ensure_checkpoint({stub!r}, Path({str(cache)!r}))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "STUB": "hangs"}
    killed = subprocess.Popen([sys.executable, "-c", code], env=env)
    while not list(cache.glob("*/config.json")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    [half] = folders(cache)
    orphan = int((tmp_path / "runs").read_text().split()[0])
    made = ensure_checkpoint(stub, cache)
    assert made != half
    assert (made / "config.json").read_text() == "whole"
    assert folders(cache) == [made]
    os.kill(orphan, 9)
