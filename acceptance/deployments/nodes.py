"""The hosts that one server runs on, and the words that tell vLLM on each of them of the others.

vLLM has two ways over nodes, both in every version from 0.12 on: data parallelism, where each node
holds whole engines, the others' without HTTP (--headless), and one address at which they meet; and
for a single engine --nnodes with its master address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.deployments.layout import Layout
    from acceptance.deployments.schema import Deployment


@dataclass(frozen=True)
class Node:
    """address: by which the other nodes reach it. interface: the network interface of that
    address, "" where that is left to the libraries. gpus: UUIDs of leased GPUs, None without a
    lease."""

    address: str
    interface: str = ""
    gpus: tuple[str, ...] | None = None

    def env(self) -> dict[str, str]:
        """What tells vLLM, gloo and NCCL which of the host's addresses is meant."""
        names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if self.interface else ()
        return {"VLLM_HOST_IP": self.address, **dict.fromkeys(names, self.interface)}


@dataclass(frozen=True)
class Site:
    """Where one server runs. nodes: the head first. port: of HTTP on the head, listening on host.
    meeting: a TCP port of the head at which its nodes meet; only used by several."""

    nodes: tuple[Node, ...]
    port: int
    host: str = "127.0.0.1"
    meeting: int = 0

    @property
    def head(self) -> Node:
        return self.nodes[0]


def spread_words(layout: Layout, site: Site, node: int) -> list[str]:
    """The words for one of several nodes, after the sizes of the layout."""
    if layout.nodes == 1:
        return []
    address, port = site.head.address, str(site.meeting)
    headless = ["--headless"] if node else []
    if layout.data > 1:
        local = layout.data // layout.nodes
        start = ["--data-parallel-start-rank", str(node * local)] if node else []
        size = ["--data-parallel-size-local", str(local), *start]
        meet = ["--data-parallel-address", address, "--data-parallel-rpc-port", port]
        return [*size, *meet, *headless]
    rank = ["--nnodes", str(layout.nodes), "--node-rank", str(node)]
    return [*rank, "--master-addr", address, "--master-port", port, *headless]


def on_node(deployment: Deployment, node: int) -> Deployment:
    """The deployment with its options as one node needs them: cores are named for every rank, and
    vLLM counts the ranks of a node from 0."""
    cores = deployment.options.cpu_threads_bind or ""
    if deployment.layout.nodes == 1 or not cores[:1].isdigit():
        return deployment
    here = deployment.layout.ranks // deployment.layout.nodes
    mine = "|".join(cores.split("|")[node * here : (node + 1) * here])
    options = deployment.options.model_copy(update={"cpu_threads_bind": mine})
    return deployment.model_copy(update={"options": options})


def node_folder(run_dir: Path, node: int) -> Path:
    """Where a run keeps what is of one node: the head's where it is of a single host, those of
    others in parts that are laid out as the whole is."""
    return run_dir / "nodes" / str(node) if node else run_dir


def gpu_telemetry(run_dir: Path, deployment: str, node: int = 0) -> Path:
    """What the sampler of a node's GPUs writes."""
    return node_folder(run_dir, node) / "telemetry" / f"{deployment}.gpus.jsonl"


def gpu_telemetries(run_dir: Path, deployment: str) -> list[Path]:
    """That of the head, and of every other node that has any."""
    found = [gpu_telemetry(run_dir, deployment)]
    while (path := gpu_telemetry(run_dir, deployment, len(found))).exists():
        found.append(path)
    return found


def planned_site(deployment: Deployment, port: int, meeting: int) -> Site:
    """Nodes by name, where none are chosen yet."""
    nodes = tuple(Node(f"node{number}") for number in range(deployment.layout.nodes))
    return Site(nodes, port=port, meeting=meeting)
