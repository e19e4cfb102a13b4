"""A log of hostile lines costs linear time and little memory."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from acceptance.serving.cause import root_cause
from acceptance.serving.facts import Facts
from acceptance.serving.log import read_lines
from acceptance.serving.phases import Phases
from acceptance.serving.window import read_window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE: dict[str, Callable[[int], bytes]] = {
    "brackets": lambda n: b"(" * n,
    "one word": lambda n: b"a" * n,
    "spaces": lambda n: b" " * n,
    "escapes": lambda n: b"\x1b[" * (n // 2),
    "an open escape": lambda n: b"\x1b]" + b"0;" * (n // 2),
    "carriage returns": lambda n: b"x\r" * (n // 2),
    "heads": lambda n: b"(a pid=1) " * (n // 10),
    "commas": lambda n: b"Model loading took " + b"," * n + b" GiB and 1 s",
    "shards": lambda n: b"Loading safetensors checkpoint shards: " + b"9" * n,
    "frames": lambda n: b'  File "' + b"a" * n + b'", line ' + b"1" * n,
    "tracebacks": lambda n: b"Traceback (most recent call last):\n" * (n // 35),
    "groups": lambda n: b"| " * (n // 2),
    "nothing": lambda n: b"\n" * n,
    "zeros": lambda n: b"\0" * n,
    "no text": lambda n: b"\xff\xfe" * (n // 2),
    "keys": lambda n: b"api_key=" * (n // 8),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_lines_cost_linear_time_and_little_memory(kind: str, tmp_path: Path) -> None:
    """A regular expression gone wild would take hours for these."""
    log = tmp_path / "s.log"
    log.write_bytes(b"x\n" + HOSTILE[kind](20_000) + b"\ny\n")
    tracemalloc.start()
    try:
        root_cause(log)
        read_window(log, 0)
        phases, facts = Phases(0.0), Facts()
        for line in read_lines(log):
            phases.feed(line, 0.0)
            facts.feed(line)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
