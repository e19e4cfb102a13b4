"""The rehearsal's checkpoint: shipped with the suite, and copied to where a server reads it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from filelock import FileLock

from acceptance.errors import InputError

ROOT = Path(__file__).parents[2]
WEIGHTS = Path(__file__).parent / "weights"
FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def digest(folder: Path = WEIGHTS) -> str:
    """12 hexadecimal digits that another checkpoint would not have."""
    total = hashlib.sha256()
    for name in FILES:
        total.update(f"{name}\n".encode() + (folder / name).read_bytes())
    return total.hexdigest()[:12]


def ensure_checkpoint(cache: Path | None = None) -> Path:
    """The checkpoint's directory: a copy that no checkout changes under a running server.

    cache: default $ACCEPTANCE_CACHE, else `.cache` beside the suite. Raises InputError when the
    shipped files are not whole, or cannot be copied.
    """
    folder = cache or Path(os.environ.get("ACCEPTANCE_CACHE") or ROOT / ".cache")
    try:
        wanted = folder / f"deepseek-v3-tiny-{digest()}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{wanted.name}.lock"):
            if not wanted.exists():
                _copy(wanted)
    except OSError as error:
        raise InputError(
            "the rehearsal's checkpoint could not be made ready",
            asked=f"a copy of {WEIGHTS} in {folder}",
            cause=str(error),
            hint="the files come with the suite: check out what is missing; see docs/rehearsal.md",
        ) from error
    return wanted


def _copy(wanted: Path) -> None:
    # Its own name: whoever held the lock before may have been killed half way.
    unfinished = wanted.with_suffix(f".{os.getpid()}.unfinished")
    for abandoned in wanted.parent.glob(f"{wanted.name}.*.unfinished"):
        shutil.rmtree(abandoned, ignore_errors=True)
    unfinished.mkdir()
    for name in FILES:
        shutil.copyfile(WEIGHTS / name, unfinished / name)
    unfinished.rename(wanted)  # atomic: a killed run leaves no half checkpoint under this name
