"""The plugin that keeps vLLM's processes from spinning on shared cores."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

ASKED = """
from multiprocessing import get_context
from acceptance.rehearsal.inside import cpu_waiting
cpu_waiting.register()
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
pauses = []
cpu_waiting.time.sleep = pauses.append
class Reader(SpinCondition):
    def __init__(self):
        self.is_reader, self.busy_loop_s = True, 60
        self.record_read()
Reader().wait(1)
print(pauses)
"""


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here")
def test_a_reader_pauses_between_looks() -> None:
    """vLLM's own class, shortly after a message."""
    told = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=False, timeout=120
    )
    assert told.stdout.splitlines()[-1:] == ["[0.0001]"], told.stderr[-2000:]
