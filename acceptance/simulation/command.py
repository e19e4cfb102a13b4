"""The command that starts the simulated server of a deployment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from packaging.version import Version

from acceptance.deployments.command import ServerCommand, render
from acceptance.deployments.installed import Vllm
from acceptance.simulation.latency import constants

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment, Profile

PROGRAM = ("python", "-m", "acceptance.simulation")


def simulated_vllm() -> Vllm:
    """What serves in vLLM's place: its version is the one whose words it speaks."""
    return Vllm(Version(constants()["server"]["version"]), (sys.executable,), cpu=False)


def simulated_command(deployment: Deployment, profile: Profile, *, port: int) -> ServerCommand:
    """The recipe's command with the simulation in vLLM's place, and what it must know besides: the
    hardware that is not there, and the declared scales. Run by simulated_vllm().argv."""
    real = render(deployment, profile, simulated_vllm().version, port=port)
    scale = deployment.scale
    told = (
        *("--sim-gpu", str(deployment.gpus.kind)),
        *("--sim-precision", deployment.precision.value),
        *("--sim-length-scale", f"{scale.length:g}"),
        *("--sim-time-scale", f"{scale.time:g}"),
    )
    at = real.recipe.index("vllm")
    return ServerCommand(
        argv=(*PROGRAM, *real.argv[1:], *told),
        env=real.env,
        recipe=(*real.recipe[:at], *PROGRAM, *real.recipe[at + 1 :]),
        notes=real.notes,
    )
