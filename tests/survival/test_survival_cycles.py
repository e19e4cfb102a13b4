"""Servers started and ended again leave nothing in the process that started them; a few cycles of
what tests/survival/cycles.py does a hundred times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
import pytest
from cycles import cycle, held, simulated
from survival_left import free

from acceptance.deployments.schema import Profile
from acceptance.errors import ObservationError
from acceptance.secrets import Redactor
from acceptance.serving.custody import LOST_WARDEN
from acceptance.serving.launch import launch
from acceptance.serving.shutdown import end_idle

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


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_a_server_whose_warden_somebody_ends_is_not_judged(how: str, tmp_path: Path) -> None:
    """Its end is no shutdown of its own, and says so."""
    deployment, vllm = simulated()
    server = launch(deployment, Profile.BENCHMARK, vllm, tmp_path, redactor=Redactor())
    custody = server.custody
    assert custody is not None
    warden = psutil.Process(custody.pid).parent()
    assert warden is not None
    assert not custody.lost
    getattr(warden, how)()
    limit = time.monotonic() + 60
    while not custody.lost and time.monotonic() < limit:
        time.sleep(0.05)
    assert custody.lost
    assert custody.exited
    assert custody.fate == LOST_WARDEN
    with pytest.raises(ObservationError, match=LOST_WARDEN):
        end_idle(server)
    assert custody.processes() == []
