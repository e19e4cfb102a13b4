"""vLLM plugin: DP+EP on CPU.

vLLM 0.32's CpuCommunicator has no all_gatherv and no reduce_scatterv, so the first request to a
data-parallel MoE model kills the engine (NotImplementedError), although /health answered 200.
Both are given here over gloo, by padding to the largest rank and by a full all-reduce: enough for
two ranks and a tiny model, never meant for speed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def register() -> None:
    """Entry point of `vllm.general_plugins`; vLLM calls it in each of its processes."""
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator

    CpuCommunicator.all_gatherv = _all_gatherv
    CpuCommunicator.reduce_scatterv = _reduce_scatterv


def _all_gatherv(
    communicator: Any,
    given: torch.Tensor | list[torch.Tensor],
    dim: int = 0,
    sizes: list[int] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Concatenates every rank's rows. sizes: rows of each rank, equal ones when None."""
    if dim != 0:
        raise NotImplementedError(f"all_gatherv on CPU gathers rows only, not dim {dim}")
    if isinstance(given, list):
        return [_gather_rows(communicator, tensor, sizes) for tensor in given]
    return _gather_rows(communicator, given, sizes)


def _gather_rows(communicator: Any, tensor: torch.Tensor, sizes: list[int] | None) -> torch.Tensor:
    rows = sizes or [tensor.shape[0]] * communicator.world_size
    padded = tensor.new_zeros((max(rows), *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    parts = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(parts, padded, group=communicator.cpu_group)
    return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])


def _reduce_scatterv(
    communicator: Any, given: torch.Tensor, dim: int = 0, sizes: list[int] | None = None
) -> torch.Tensor:
    """Sums over ranks and returns this rank's rows. sizes: as for all_gatherv."""
    if dim != 0:
        raise NotImplementedError(f"reduce_scatterv on CPU scatters rows only, not dim {dim}")
    total = given.contiguous().clone()
    dist.all_reduce(total, group=communicator.cpu_group)
    rows = sizes or [total.shape[0] // communicator.world_size] * communicator.world_size
    start = sum(rows[: communicator.rank_in_group])
    return total[start : start + rows[communicator.rank_in_group]].contiguous()
