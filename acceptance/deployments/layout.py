"""How the ranks of one server are arranged, and over how many nodes."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from acceptance.deployments.data import Count, Data


class Layout(Data):
    """Ranks of one server. pipeline: stages that the layers are split into. expert: experts are
    spread over all ranks of a stage (EP), not sharded by TP. nodes: hosts, each with as many ranks
    as every other; the first is the head and serves HTTP."""

    tensor: Count = 1
    pipeline: Count = 1
    data: Count = 1
    expert: bool = False
    nodes: Count = 1

    @model_validator(mode="after")
    def _fits_nodes(self) -> Self:
        """As vLLM lays ranks over nodes: whole engines with data parallelism, else whole stages or
        stages of whole nodes."""
        if self.ranks % self.nodes:
            raise ValueError(
                f"{self.sizes} is {self.ranks} ranks, which nodes = {self.nodes} cannot share "
                "evenly"
            )
        here = self.ranks // self.nodes
        if self.data > 1 and self.data % self.nodes:
            raise ValueError(
                f"with data parallelism each node holds whole engines, and data = {self.data} "
                f"cannot be divided by nodes = {self.nodes}"
            )
        if self.data == 1 and here % self.tensor and self.tensor % here:
            raise ValueError(
                f"a node has {here} ranks, which neither hold whole stages of tensor = "
                f"{self.tensor} nor divide one; tensor parallelism over nodes needs either"
            )
        return self

    @property
    def ranks(self) -> int:
        """Workers of the server, one for each GPU."""
        return self.tensor * self.pipeline * self.data

    @property
    def expert_ranks(self) -> int:
        """Ranks that share the experts of a layer: those of one pipeline stage."""
        return self.tensor * self.data

    @property
    def sizes(self) -> str:
        """tp8+ep, dp8+ep, tp4+dp2+ep, tp8+pp2: without the nodes."""
        return "+".join(self._parts() or ["tp1"]) + ("+ep" if self.expert else "")

    @property
    def label(self) -> str:
        """As people write it: tp8+ep; "dp16+ep, 2 nodes"."""
        return self.sizes + (f", {self.nodes} nodes" if self.nodes > 1 else "")

    @property
    def fingerprint(self) -> str:
        """As vLLM writes it in system_fingerprint: tp8-ep, dp8-ep; sizes of 1 are left out."""
        return "-".join(self._parts() + (["ep"] if self.expert else []))

    @property
    def marker(self) -> str | None:
        """tp_ep or dp_ep; None without expert parallelism, which no recipe deployment lacks."""
        if not self.expert:
            return None
        return "dp_ep" if self.data > 1 else "tp_ep"

    def _parts(self) -> list[str]:
        sizes = (("tp", self.tensor), ("pp", self.pipeline), ("dp", self.data))
        return [f"{name}{size}" for name, size in sizes if size > 1]
