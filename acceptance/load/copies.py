"""One import of vLLM's benchmark client for all workers of this machine: inside/bench_copies.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.load.inside.bench_worker import COPIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
MODULE = "acceptance.load.inside.bench_copies"
ALONE = {"OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # begins no threads, sees no GPU
GRACE = 5.0  # seconds to end in


@contextmanager
def imported(additions: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """What has workers that run this interpreter begin as copies of a process that has imported the
    client; empty where there is no vLLM to import, or it cannot be copied. additions: to that
    process's environment. Its copies end with their workers, not with it."""
    env = {**os.environ, **ALONE, **(additions or {})}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH", ""))))
    with tempfile.TemporaryDirectory(prefix="acceptance-") as folder:
        address = str(Path(folder, "copies"))
        with subprocess.Popen(
            [sys.executable, "-m", MODULE, address],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                ready = any(line == b"ready\n" for line in process.stdout)  # others may come before
                yield {COPIES: address} if ready else {}
            finally:
                process.stdin.close()
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
