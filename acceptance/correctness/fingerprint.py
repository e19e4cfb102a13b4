"""What a record is bound to: the checkpoint's files, its tokenizer and the texts."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

WHOLE = 64 << 20  # bytes: files up to here are read whole
SAMPLE = 1 << 20  # bytes read at both ends of larger ones
WEIGHTS = ("*.safetensors", "config.json", "*.index.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.*")
_BLOB = re.compile(r"[0-9a-f]{64}")


def find_checkpoint(model: str) -> Path | None:
    """The folder of a model on this host: a path, or the newest snapshot in the hub's cache. None
    where it is not here."""
    if Path(model).is_dir():
        return Path(model)
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    folder = cache / f"models--{model.replace('/', '--')}" / "snapshots"
    found = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def checkpoint_digest(folder: Path) -> str:
    """16 hex digits over config, index and weights. Large files count by name, size and both ends,
    or by the hub's own sha256 where the cache names them so: 700 GB are not read for this."""
    return _digest(folder, WEIGHTS)


def tokenizer_digest(folder: Path) -> str:
    """16 hex digits over what turns text into token ids."""
    return _digest(folder, TOKENIZER)


def _digest(folder: Path, patterns: tuple[str, ...]) -> str:
    made = hashlib.sha256()
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    for path in files:
        made.update(f"{path.name}\n{_of_file(path)}\n".encode())
    return made.hexdigest()[:16] if files else ""


def _of_file(path: Path) -> str:
    real = path.resolve()
    if path.is_symlink() and _BLOB.fullmatch(real.name):
        return real.name
    size, made = real.stat().st_size, hashlib.sha256()
    with real.open("rb") as file:
        if size <= WHOLE:
            made.update(file.read())
        else:
            made.update(file.read(SAMPLE))
            file.seek(-SAMPLE, os.SEEK_END)
            made.update(file.read(SAMPLE))
    return f"{size} {made.hexdigest()}"
