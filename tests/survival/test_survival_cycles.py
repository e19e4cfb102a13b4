"""Servers started and ended again leave nothing in the process that started them; a few cycles of
what tests/survival/cycles.py does a hundred times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cycles import cycle, held, simulated
from survival_world import free

if TYPE_CHECKING:
    from pathlib import Path


def test_cycles_leave_no_file_thread_child_or_port(tmp_path: Path) -> None:
    deployment, vllm = simulated()
    cycle(deployment, vllm, tmp_path)
    before = held()
    ports = [cycle(deployment, vllm, tmp_path) for _ in range(3)]
    after = held()
    assert (after.files, after.threads, after.children) == (
        before.files,
        before.threads,
        before.children,
    )
    assert after.memory_mib - before.memory_mib < 16
    assert all(free(port) for port in ports)
    logs = sorted(path.name for path in (tmp_path / "servers").iterdir())
    assert len(logs) == 4  # each its own
