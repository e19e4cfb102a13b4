"""Fake servers over the nodes of a cluster, and a Ray that is none."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from packaging.version import Version

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "serving"), str(ROOT / "tests" / "fixtures")]

from serving_world import FAKE, RUN, fake_deployment  # noqa: E402

from acceptance.cluster.launcher import RayLauncher  # noqa: E402
from acceptance.deployments.installed import Vllm  # noqa: E402
from acceptance.deployments.schema import Profile  # noqa: E402
from acceptance.secrets import Redactor  # noqa: E402
from acceptance.serving import launch  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.serving.server import Server

NAME = "rehearsal-2node-dp-ep"
PORT, CLIENT = 26379, 24001  # of the tests' cluster, outside the ports that Ray gives its workers
VLLM = Vllm(Version("0.32.0"), (sys.executable, str(FAKE)), cpu=True, python=sys.executable)


def start_on(ray: Any, run_dir: Path, *faults: str) -> Server:
    """Launches the fake on two nodes of the cluster. What it is told goes by the lane's
    environment: a node has its own, not the driver's."""
    said = {"FAKE_VLLM": ",".join(faults), RUN: str(run_dir)}
    prepared = launch.Preparation("made-up", said)
    with mock.patch.object(launch, "prepare", return_value=prepared):
        return launch.launch(
            fake_deployment(NAME, start=120),
            Profile.BENCHMARK,
            VLLM,
            run_dir,
            redactor=Redactor(),
            launcher=RayLauncher(ray),
        )


class OutOfReach(Exception):
    """As Ray's own errors."""


class Late(OutOfReach):
    """As Ray's own where an answer takes too long."""


class NoRay:
    """Enough of Ray for one node: an agent in this process, or one that is gone."""

    exceptions = SimpleNamespace(
        RayError=OutOfReach, GetTimeoutError=Late, ActorUnavailableError=Late
    )

    def __init__(self) -> None:
        self.dead = self.late = False
        self.killed: list[Any] = []

    def is_initialized(self) -> bool:
        return True

    def get(self, asked: Callable[[], Any], timeout: float) -> Any:
        assert timeout > 0
        if self.dead:
            raise OutOfReach("The actor died unexpectedly.\nmore")
        if self.late:
            raise Late
        return asked()

    def kill(self, agent: Any) -> None:
        self.killed.append(agent)


class Handle:
    """An agent as its driver sees it."""

    def __init__(self, agent: object) -> None:
        self._agent = agent

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._agent, name)
        return SimpleNamespace(remote=lambda *args: lambda: method(*args))
