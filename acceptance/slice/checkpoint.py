"""The slice's folder: config and tokenizer, which is all that `--load-format dummy` reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from acceptance.slice.config import slice_config
from acceptance.slice.tokenizer import tokenizer_config, tokenizer_json

if TYPE_CHECKING:
    from acceptance.deployments.schema import Precision

ROOT = Path(__file__).parents[2]


def files(precision: Precision) -> dict[str, dict[str, Any]]:
    """What the folder holds, by file name."""
    return {
        "config.json": slice_config(precision),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": tokenizer_config(),
    }


def ensure_slice(precision: Precision, cache: Path | None = None) -> Path:
    """The folder, written when the cache lacks it. cache: default $ACCEPTANCE_CACHE, else `.cache`
    beside the suite."""
    texts = {
        name: json.dumps(data, ensure_ascii=False, indent=1)
        for name, data in files(precision).items()
    }
    folder = cache or Path(os.environ.get("ACCEPTANCE_CACHE") or ROOT / ".cache")
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:12]
    wanted = folder / f"deepseek-r1-slice-{precision}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{wanted.name}.lock"):
        if not wanted.exists():
            unfinished = wanted.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name, text in texts.items():
                (unfinished / name).write_text(text, encoding="utf-8")
            unfinished.rename(wanted)  # atomic: a killed run leaves no half folder by this name
    return wanted
