"""The rehearsal's own questions as a data set that lm-eval reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from acceptance.rehearsal.tasks import held_out

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.correctness.benchmarks import Benchmark

KINDS = ("arithmetic", "copy", "lookup", "echo")  # calls of tools are conformance's matter
SEED = 95


def write_own_questions(folder: Path, benchmark: Benchmark) -> Path:
    """Writes held-out tasks of all kinds, in turn; returns the folder for data_files()."""
    each = -(-benchmark.questions // len(KINDS))
    by_kind = [held_out(kind, each, SEED) for kind in KINDS]
    tasks = [task for group in zip(*by_kind, strict=True) for task in group]
    data = folder / "data" / benchmark.name
    data.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"kind": task.kind, "prompt": task.prompt, "answer": task.answer})
        for task in tasks[: benchmark.questions]
    ]
    (data / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "data"
