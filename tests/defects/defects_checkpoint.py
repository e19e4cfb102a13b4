"""Copies of a checkpoint with one thing wrong in their files."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
BOS = "<｜begin▁of▁sentence｜>"


def spoiled(whole: Path, how: str) -> Path:
    """The folder of a copy. how: missing, truncated, corrupted or second-bos. Whoever starts the
    run removes it with its temporary files."""
    copy = Path(tempfile.mkdtemp(prefix="defects-checkpoint-")) / whole.name
    shutil.copytree(whole, copy)
    weights = copy / WEIGHTS
    match how:
        case "missing":
            weights.unlink()
        case "truncated":
            with weights.open("r+b") as file:
                file.truncate(weights.stat().st_size // 2)
        case "corrupted":
            _corrupt(weights)
        case "second-bos":
            _second_bos(copy / "tokenizer.json")
        case _:
            raise ValueError(f"{how!r} is nothing that a checkpoint can be spoiled by")
    return copy


def _corrupt(weights: Path) -> None:
    """A quarter of the largest tensor of a layer in the middle becomes noise, in place."""
    with weights.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        tensors: dict[str, Any] = json.loads(file.read(length))
        tensors.pop("__metadata__", None)
        layers = {name: told["data_offsets"] for name, told in tensors.items() if ".1." in name}
        begin, end = max(layers.values(), key=lambda span: span[1] - span[0])
        size = (end - begin) // 4
        file.seek(8 + length + begin)
        noise = bytearray(random.Random(1).randbytes(size))
        noise[1::2] = bytes(byte & 0xBF for byte in noise[1::2])  # bf16 below 2, and no NaN
        file.write(noise)


def _second_bos(tokenizer: Path) -> None:
    """Every text gets two BOS tokens."""
    data = json.loads(tokenizer.read_text(encoding="utf-8"))
    number = next(t["id"] for t in data["added_tokens"] if t["content"] == BOS)
    special = {"SpecialToken": {"id": BOS, "type_id": 0}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [special, special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [special, special, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [number], "tokens": [BOS]}},
    }
    tokenizer.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
