"""A second server of a deployment starts only where the first one's memory is back."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from gpus_fake_nvml import GIB, h200s
from gpus_world import World

import fixtures.gpus as watched
from acceptance.deployments.load import load_deployments
from acceptance.gpus.lease import Lease
from acceptance.gpus.lock import LeaseRefused
from acceptance.gpus.probe import Gpu

if TYPE_CHECKING:
    from pathlib import Path

DEPLOYMENT = load_deployments()["slice-fp8-1xh200"]


def test_it_is_refused_while_memory_is_taken_and_the_gpu_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(h200s(1), tmp_path / "t.jsonl")
    (gpu,) = world.probe.gpus()
    assert isinstance(gpu, Gpu)
    lease = Lease((gpu,), ())
    anything: Any = None
    watch = watched.GpuWatch((gpu,), world.probe, anything, {}, {gpu.uuid: 0}, 0.0)
    config: Any = SimpleNamespace(stash=pytest.Stash())
    config.stash[watched.LEASES] = {DEPLOYMENT.name: lease}
    config.stash[watched.WATCHES] = {DEPLOYMENT.name: watch}
    monkeypatch.setattr(watched, "returned", partial(watched.returned, timeout=0.0))
    with watched.leased(DEPLOYMENT, anything, config) as again:
        assert again is lease
    world.gpus[0].taken = 60 * GIB
    with (
        pytest.raises(LeaseRefused, match="has not come back") as refused,
        watched.leased(DEPLOYMENT, anything, config),
    ):
        pass
    assert f"{gpu}: 60.0 GiB more" in refused.value.cause
