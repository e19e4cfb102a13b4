"""Launchers of this host: one server on it, and several nodes that are all this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from acceptance.deployments.nodes import Node, Site
from acceptance.deployments.schema import Lane
from acceptance.errors import InputError
from acceptance.serving.custody import Custody
from acceptance.serving.sockets import SOCKETS
from acceptance.serving.together import Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.deployments.schema import Deployment
    from acceptance.gpus.lease import Lease
    from acceptance.serving.launcher import Care, Launcher, Part

LOOPBACK = "127.0.0.1"
# Variables of the caller that say where vLLM keeps things, not how it serves.
KEPT = ("VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "VLLM_NO_USAGE_STATS", SOCKETS)


class Here:
    """One node, this host, reached by loopback alone. lease: of its GPUs, which the server's warden
    holds too."""

    def __init__(self, lease: Lease | None = None) -> None:
        self._lease = lease

    def site(self, deployment: Deployment) -> Site:
        node = Node(LOOPBACK, gpus=self._lease.uuids if self._lease else None)
        return Site((node,), port=free_port())

    def start(self, parts: Sequence[Part]) -> Care:
        (part,) = parts
        return take(replace(part, hold=self._lease.fds) if self._lease else part)


class NodesHere:
    """Several nodes of one machine, for a rehearsal: each with its own warden, log and folder,
    meeting over loopback. Says nothing of networks."""

    def site(self, deployment: Deployment) -> Site:
        nodes = deployment.layout.nodes
        if deployment.lane is not Lane.REHEARSAL:
            raise InputError(
                f"{deployment.name} needs {nodes} hosts, and there is one",
                asked=f"a server over {nodes} nodes",
                hint="docs/cluster.md says what can be judged over several hosts",
            )
        node = Node(LOOPBACK, interface_of(LOOPBACK))
        port, meeting = free_ports(2)
        return Site((node,) * nodes, port=port, meeting=meeting)

    def start(self, parts: Sequence[Part]) -> Care:
        return Together.start(parts, take)


def launcher_for(deployment: Deployment, lease: Lease | None = None) -> Launcher:
    """The launcher of this host for a deployment. lease: of the GPUs that it takes."""
    return NodesHere() if deployment.layout.nodes > 1 else Here(lease)


def take(part: Part) -> Custody:
    """Starts a part on this host, in the folder of its log. Raises ServerError."""
    return Custody(
        part.argv,
        {**inherited(), **part.env},
        part.log,
        mark=part.mark,
        cwd=part.log.parent,
        hold=part.hold,
        secret=part.secret,
    )


def inherited() -> dict[str, str]:
    """The caller's environment without its VLLM_ settings: a variable left over in a shell must not
    change what is accepted."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VLLM_") or name in KEPT
    }


def free_port() -> int:
    """A TCP port on loopback that is free now; whoever answers it must still prove the key."""
    return free_ports(1)[0]


def free_ports(count: int, address: str = LOOPBACK) -> tuple[int, ...]:
    """So many different TCP ports that nobody listens on now. address: "" for any of this host."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((address, 0))
        return tuple(int(listener.getsockname()[1]) for listener in listeners)


def interface_of(address: str) -> str:
    """Name of this host's network interface with that address, for any loopback address that of
    loopback; "" where none has it."""
    wanted = {LOOPBACK, address} if ipaddress.ip_address(address).is_loopback else {address}
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address in wanted for one in addresses):
            return name
    return ""
