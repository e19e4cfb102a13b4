"""The slice's folder: configs and tokenizer, which is all that `--load-format dummy` reads."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from acceptance.made import cache_folder, made_once, write_texts
from acceptance.slice.config import GENERATION, slice_config
from acceptance.slice.tokenizer import tokenizer_config, tokenizer_json

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.deployments.schema import Precision


def files(precision: Precision) -> dict[str, dict[str, Any]]:
    """What the folder holds, by file name."""
    return {
        "config.json": slice_config(precision),
        "generation_config.json": GENERATION,
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": tokenizer_config(),
    }


def ensure_slice(precision: Precision, cache: Path | None = None) -> Path:
    """The folder, written when the cache lacks it. cache: see cache_folder()."""
    texts = {
        name: json.dumps(data, ensure_ascii=False, indent=1)
        for name, data in files(precision).items()
    }
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:12]
    wanted = cache_folder(cache) / f"deepseek-r1-slice-{precision}-{digest}"
    return made_once(wanted, lambda folder: write_texts(folder, texts))
