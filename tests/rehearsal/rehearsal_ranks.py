"""One rank of two: `python rehearsal_ranks.py RANK STORE CASES OUT`.

CASES: JSON list of {"call", "rows" of each rank, "given" sizes or null, "dtype", "dim"}. OUT: JSON
list of what each gave this rank: rows as lists, a list of those, or {"error": type}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from acceptance.rehearsal.inside.cpu_data_parallel import _all_gatherv, _reduce_scatterv

COLUMNS = 3


def rows(count: int, rank: int, dtype: torch.dtype) -> torch.Tensor:
    """Whole numbers that say whose they are, which every dtype holds exactly."""
    first = 10 * (rank + 1)
    return torch.arange(first, first + count * COLUMNS).reshape(count, COLUMNS).to(dtype)


def run(case: dict[str, Any], rank: int, communicator: Any) -> Any:
    dtype = getattr(torch, case["dtype"])
    given = rows(case["rows"][rank], rank, dtype)
    call = {"dim": case["dim"], "sizes": case["given"]}
    if case["call"] == "reduce_scatterv":
        kept = given.clone()
        said = _reduce_scatterv(communicator, given, **call)
        assert torch.equal(given, kept)
        assert said.dtype == dtype
        return said.tolist()
    if case["call"] == "all_gatherv of several":
        both = _all_gatherv(communicator, [given, given[:, 0]], **call)
        return [one.tolist() for one in both]
    said = _all_gatherv(communicator, given, **call)
    assert isinstance(said, torch.Tensor)
    assert said.dtype == dtype
    return said.tolist()


def main(rank: int, store: str, cases: Path, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    group = dist.group.WORLD
    communicator = SimpleNamespace(world_size=2, rank_in_group=rank, cpu_group=group)
    said: list[Any] = []
    for case in json.loads(cases.read_text()):
        try:
            said.append(run(case, rank, communicator))
        except NotImplementedError as error:
            said.append({"error": str(error)})
    out.write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
