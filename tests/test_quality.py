"""The code itself: lint, format and types, as part of the suite's own tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[1]
TOOLS = {
    "ruff": ["ruff", "check", "."],
    "ruff-format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
}
SLOW = "mypy"
BESIDE: list[subprocess.Popen[str]] = []  # of the slow tool, begun before the first test


@contextmanager
def beside(items: Sequence[pytest.Item]) -> Iterator[None]:
    """The slow tool takes a core for 20 s, and most tests wait for others: if its test is among
    these, it runs beside them, on what they leave of the machine."""
    nodeid = f"{test_tool_finds_nothing.__name__}[{SLOW}]"
    if any(item.name == nodeid for item in items) and importlib.util.find_spec(SLOW):
        BESIDE.append(begin(SLOW, "nice", "-n", "19"))
    try:
        yield
    finally:
        for process in BESIDE:
            process.kill()
            process.communicate()


def begin(tool: str, *before: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-m", *TOOLS[tool]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_finds_nothing(tool: str) -> None:
    """ruff and mypy --strict are clean over everything."""
    if importlib.util.find_spec(TOOLS[tool][0]) is None:
        pytest.skip(f"{TOOLS[tool][0]} is not installed here: ./accept test has it")
    process = BESIDE.pop() if BESIDE and tool == SLOW else begin(tool)
    out, err = process.communicate()
    assert process.returncode == 0, out[-4000:] + err[-1000:]
