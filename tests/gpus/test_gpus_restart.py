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
from acceptance.gpus.held import Found, Held
from acceptance.gpus.lease import Lease
from acceptance.gpus.lock import LeaseRefused
from acceptance.gpus.probe import Gpu
from acceptance.serving.here import Here
from fixtures.gpuwatch import GpuWatch

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
    found = Found((gpu,), {}, {gpu.uuid: 0}, 0.0)
    watch = GpuWatch((Held(lease, found, world.probe, anything),))
    config: Any = SimpleNamespace(stash=pytest.Stash())
    launcher = Here(lease)
    config.stash[watched.LAUNCHERS] = {DEPLOYMENT.name: launcher}
    config.stash[watched.WATCHES] = {DEPLOYMENT.name: watch}
    monkeypatch.setattr(watch, "returned", partial(watch.returned, timeout=0.0))
    with watched.placed(DEPLOYMENT, anything, config) as again:
        assert again is launcher
        assert again.site(DEPLOYMENT).head.gpus == (gpu.uuid,)
    world.gpus[0].taken = 60 * GIB
    with (
        pytest.raises(LeaseRefused, match="has not come back") as refused,
        watched.placed(DEPLOYMENT, anything, config),
    ):
        pass
    assert f"{gpu}: 60.0 GiB more" in refused.value.cause
