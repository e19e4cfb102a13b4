"""The generated checkpoint: made once by vLLM's own interpreter, then kept in a cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from acceptance.errors import InputError

ROOT = Path(__file__).parents[2]
MAKER = Path(__file__).parent / "inside" / "make_checkpoint.py"
CORPUS = ROOT / "LICENSE"
MODULE = "acceptance.rehearsal.inside.make_checkpoint"


def ensure_checkpoint(python: str, cache: Path | None = None) -> Path:
    """The checkpoint's directory, generated when the cache lacks it (about 8 s).

    python: the interpreter vLLM is installed in. cache: default $ACCEPTANCE_CACHE, else
    `.cache` beside the suite. Raises InputError when generating fails.
    """
    folder = cache or Path(os.environ.get("ACCEPTANCE_CACHE") or ROOT / ".cache")
    digest = hashlib.sha256(MAKER.read_bytes() + CORPUS.read_bytes()).hexdigest()[:12]
    wanted = folder / f"deepseek-v3-tiny-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{wanted.name}.lock"):
        if not wanted.exists():
            _generate(python, wanted)
    return wanted


def _generate(python: str, wanted: Path) -> None:
    for abandoned in wanted.parent.glob(
        f"{wanted.name}.*.unfinished"
    ):  # nobody's: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    # Its own name, because the child of a killed run may still be writing to the old one.
    unfinished = wanted.with_suffix(f".{os.getpid()}.unfinished")
    try:
        made = subprocess.run(
            [python, "-m", MODULE, str(unfinished), str(CORPUS)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise _failed(python, str(error)) from error
    if made.returncode != 0 or not unfinished.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
        lines = made.stderr.strip().splitlines() or [f"exit code {made.returncode}"]
        raise _failed(python, lines[-1])
    unfinished.rename(wanted)  # atomic: a killed run leaves no half checkpoint under this name


def _failed(python: str, cause: str) -> InputError:
    return InputError(
        "the rehearsal checkpoint could not be generated",
        asked=f"{python} -m {MODULE}",
        cause=cause,
        hint="transformers and torch must be installed beside vLLM: ./accept rehearse does it",
    )
