"""Folders that the suite makes itself and keeps in its cache: each once, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[1]


def cache_folder(given: Path | None = None) -> Path:
    """given; without it $ACCEPTANCE_CACHE, else `.cache` beside the suite."""
    return given or Path(os.environ.get("ACCEPTANCE_CACHE") or ROOT / ".cache")


def made_once(wanted: Path, make: Callable[[Path], object]) -> Path:
    """The folder, made where it is not there yet, by one process at a time.

    make: is given a path that does not exist, below a folder that does, and leaves it whole. What
    it raises goes on, and so does OSError.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(wanted.parent / f"{wanted.name}.lock"):
        if not wanted.exists():
            # Its own name: who held the lock before may have been killed half way, and what it
            # started may write on.
            unfinished = wanted.with_name(f"{wanted.name}.{os.getpid()}.unfinished")
            for abandoned in wanted.parent.glob(f"{wanted.name}.*.unfinished"):
                shutil.rmtree(abandoned, ignore_errors=True)
            make(unfinished)
            unfinished.rename(wanted)  # atomic: a killed run leaves no half folder by this name
    return wanted


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """A new folder of files, by their names."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
