"""Healthy servers that proxies stand before: one simulated, or real vLLM on CPU."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defects_running import HERE, ROOT
from defects_worlds import SITE

from acceptance.deployments.installed import find_vllm
from acceptance.deployments.load import load_deployments
from acceptance.deployments.schema import Profile
from acceptance.secrets import Redactor
from acceptance.serving.launch import launch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

sys.path.append(str(ROOT / "tests" / "simulation"))
from simulation_world import KEY, running


@dataclass(frozen=True)
class Base:
    """deployment: what runs against it are told that it is."""

    url: str
    key: str
    deployment: str


@contextmanager
def simulated_base(folder: Path) -> Iterator[Base]:
    deployment = load_deployments([folder / SITE])["defects-tp"]
    with running(folder, deployment) as server:
        yield Base(server.url, KEY, deployment.name)


def switch(folder: Path) -> Path:
    """The file that says what is broken in the server of vllm_base."""
    return folder / "switch.json"


@contextmanager
def vllm_base(folder: Path, name: str = "rehearsal-defects-tp") -> Iterator[Base]:
    """Ready after half a minute. What `switch` below names is read by the plugin that breaks it.
    Nothing of it is left."""
    deployment = load_deployments([folder / SITE])[name]
    os.environ["ACCEPTANCE_DEFECT_SWITCH"] = str(switch(folder))
    paths = (str(HERE / "overlay"), os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    server = launch(deployment, Profile.BENCHMARK, find_vllm(), folder, redactor=Redactor())
    assert server.custody is not None
    try:
        yield Base(server.base_url, server.api_key, name)
    finally:
        server.custody.end(deployment.budgets.stop)
