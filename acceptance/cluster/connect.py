"""Ray, which is only needed where a cluster is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
AUTO, CLIENT = "auto", "ray://"
NICENESS = "RAY_worker_niceness"  # 15 where nobody says; what agents start has it too
STORE = 100 << 20  # bytes of a cluster of one process for what its agents hand over
INSTALL = (
    "install the extra `cluster` of this project, in the version that the cluster runs: "
    f"{sys.executable} -m pip install 'ray[client]==VERSION'"
)
HINT = (
    "`ray status` on a node of it; docs/cluster.md says how to start one. One that asks for a "
    "token answers nobody else: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or ~/.ray/auth_token"
)


def check_cluster(address: str) -> None:
    """Raises InputError for what is no address, and where there is no Ray. Connects to nothing."""
    asked = f"--cluster {address}"
    if address != AUTO and not address.startswith(CLIENT):
        raise InputError(
            f"{address!r} is no address of a Ray cluster",
            asked=asked,
            hint="auto, for the cluster that this host is part of, or ray://HOST:10001",
        )
    check_installed(asked)


def connect(address: str) -> Any:
    """The ray module, connected. Its workers run this interpreter and this suite, at the same paths
    as here. Raises InputError."""
    check_cluster(address)
    ray = _ray()
    try:
        ray.init(address=address, **_settings())
    except (
        ConnectionError,
        RuntimeError,
        TimeoutError,
        ValueError,
        ray.exceptions.RayError,  # of a token that is asked for and not there
    ) as error:
        raise InputError(
            f"no Ray cluster answers: {error}", asked=f"--cluster {address}", hint=HINT
        ) from error
    return ray


def own_cluster(cpus: int, resources: Mapping[str, float]) -> Any:
    """The ray module, connected to a cluster of this process alone, of one node: it ends with it.
    cpus: that its agents take together. Raises InputError where there is no Ray."""
    check_installed("a cluster on this machine")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(NICENESS, "0")
    # Without a token of its own, Ray 2.60 leaves one in the home folder, which other clusters that
    # are started from there ask for from then on.
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ray = _ray()
    ray.init(
        address="local",
        num_cpus=cpus,
        resources=dict(resources),
        include_dashboard=False,
        object_store_memory=STORE,
        **_settings(),
    )
    return ray


def check_installed(asked: str) -> None:
    """Raises InputError, with the command to install it, where there is no Ray."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed here", asked=asked, hint=INSTALL)


def _ray() -> Any:
    ray: Any = importlib.import_module("ray")
    importlib.import_module("ray.util.scheduling_strategies")
    return ray


def _settings() -> dict[str, Any]:
    runtime = {"env_vars": {"PYTHONPATH": str(ROOT)}, "py_executable": sys.executable}
    return {"runtime_env": runtime, "log_to_driver": False, "logging_level": "WARNING"}
