"""Commands of reports/ as a person calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def called(module: str, *runs: Path) -> subprocess.CompletedProcess[str]:
    """`python -m module RUN...`, on a narrow terminal."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, runs)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=False,
    )
