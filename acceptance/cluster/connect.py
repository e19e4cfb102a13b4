"""Ray, which is only needed where a cluster is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from acceptance.errors import InputError

ROOT = Path(__file__).parents[2]
AUTO, CLIENT = "auto", "ray://"
INSTALL = (
    "install the extra `cluster` of this project, in the version that the cluster runs: "
    "pip install 'ray[client]==VERSION'"
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
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed here", asked=asked, hint=INSTALL)


def connect(address: str) -> Any:
    """The ray module, connected. Its workers run this interpreter and this suite, at the same paths
    as here. Raises InputError."""
    check_cluster(address)
    ray: Any = importlib.import_module("ray")
    importlib.import_module("ray.util.scheduling_strategies")
    runtime = {"env_vars": {"PYTHONPATH": str(ROOT)}, "py_executable": sys.executable}
    try:
        ray.init(address=address, runtime_env=runtime, log_to_driver=False, logging_level="WARNING")
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers: {error}",
            asked=f"--cluster {address}",
            hint="`ray status` on a node of it; docs/cluster.md says how to start one",
        ) from error
    return ray
