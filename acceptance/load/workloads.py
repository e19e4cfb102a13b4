"""The recipe's benchmark matrix, and the part of it that one deployment runs.

Workloads and batch sizes are those of the vLLM recipe "DeepSeek-V3 (R1) usage guide". A deployment
scales lengths and batches by its declared factors, so that a CPU can run the same matrix.
"""

from __future__ import annotations

import functools
import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING

from acceptance.errors import InputError
from acceptance.judging.judgement import Frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.deployments.schema import Deployment

SHORTEST_INPUT = 8  # tokens; shorter prompts are mostly special tokens
SHORTEST_OUTPUT = 2  # tokens; one token has no time per output token


class Tier(StrEnum):
    """How much of the matrix runs."""

    SMOKE = "smoke"
    GATE = "gate"
    FULL = "full"


class Workload(Frozen):
    """Input and output tokens of every request, before scaling."""

    name: str
    isl: int
    osl: int


WORKLOADS = (
    Workload(name="prompt-heavy", isl=8000, osl=1000),
    Workload(name="decode-heavy", isl=1000, osl=8000),
    Workload(name="balanced", isl=1000, osl=1000),
)
BATCHES = {
    Tier.SMOKE: (16,),
    Tier.GATE: (1, 16, 64),
    Tier.FULL: (1, 16, 32, 64, 128, 256, 512),
}


# Runs of a cell by its requests. One request gives one sample of every latency, which decides
# nothing: it is measured again, with other prompts, and the median is judged.
REPEATS = {1: 3}


class Cell(Frozen):
    """One workload at one batch size on one deployment.

    id: workload and nominal batch, as in `prompt-heavy-b16`. nominal: the recipe's batch size;
    batch, isl, osl: what is asked, after scaling: requests, and tokens of each request.
    seed: of the random prompts; fixed, and another one in every cell and deployment, because equal
    prompts would be served from a warm prefix cache (vllm#52884, vllm#54227).
    """

    id: str
    deployment: str
    workload: str
    nominal: int
    batch: int
    isl: int
    osl: int
    seed: int

    @property
    def repeats(self) -> int:
        """How often it is measured."""
        return REPEATS.get(self.batch, 1)

    @property
    def input_tokens(self) -> int:
        """Prompt tokens asked of the whole cell."""
        return self.batch * self.isl

    @property
    def output_tokens(self) -> int:
        """Generated tokens asked of the whole cell."""
        return self.batch * self.osl


def cell_ids(tier: Tier | str) -> tuple[str, ...]:
    """The ids of a tier's cells, the same for every deployment."""
    batches = BATCHES[Tier(tier)]
    return tuple(f"{workload.name}-b{batch}" for workload in WORKLOADS for batch in batches)


def make_cell(deployment: Deployment, cell_id: str) -> Cell:
    """The cell of this id, scaled to the deployment. Raises InputError for an unknown id."""
    name, _, nominal = cell_id.rpartition("-b")
    workload = next((known for known in WORKLOADS if known.name == name), None)
    if workload is None or not nominal.isdigit() or int(nominal) < 1:
        raise InputError(
            f"no cell is called {cell_id}", hint=f"cells are {', '.join(cell_ids(Tier.FULL))}"
        )
    scale = deployment.scale
    return Cell(
        id=cell_id,
        deployment=deployment.name,
        workload=name,
        nominal=int(nominal),
        batch=max(1, round(int(nominal) * scale.batch)),
        isl=max(SHORTEST_INPUT, round(workload.isl * scale.length)),
        osl=max(SHORTEST_OUTPUT, round(workload.osl * scale.length)),
        seed=seed_of(deployment.name, cell_id),
    )


def cells(deployment: Deployment, tier: Tier | str) -> list[Cell]:
    """The distinct cells of a tier, in the recipe's order.

    Cells that scaling makes equal are given once, under the smallest nominal batch. Raises
    InputError when one does not fit the deployment's maximum model length.
    """
    distinct: dict[tuple[str, int], Cell] = {}
    for cell_id in cell_ids(tier):
        cell = make_cell(deployment, cell_id)
        distinct.setdefault((cell.workload, cell.batch), cell)
    found = list(distinct.values())
    must_fit(deployment, found)
    return found


def must_fit(deployment: Deployment, asked: Sequence[Cell]) -> None:
    """Raises InputError naming the cells whose requests exceed the maximum model length."""
    longest = deployment.options.max_model_len
    unfit = [cell for cell in asked if longest is not None and cell.isl + cell.osl > longest]
    if not unfit:
        return
    needed = max(cell.isl + cell.osl for cell in unfit)
    raise InputError(
        f"{deployment.name} cannot hold {', '.join(cell.id for cell in unfit)}: a request needs "
        f"{needed} tokens, max_model_len is {longest}",
        asked="cells of the benchmark matrix",
        hint=f"raise max_model_len to {needed} or lower scale.length",
    )


@functools.cache  # asked for every test
def same_as(deployment: Deployment, tier: Tier | str, cell_id: str) -> str | None:
    """The id of the cell that stands for this one where scaling makes the two equal, else None."""
    wanted = make_cell(deployment, cell_id)
    for other_id in cell_ids(tier):
        other = make_cell(deployment, other_id)
        if (other.workload, other.batch) == (wanted.workload, wanted.batch):
            return None if other_id == cell_id else other_id
    return None


def take(cell: Cell, attempt: int, repeat: int) -> Cell:
    """The cell with the seed of one repeat of one attempt, each counted from 1. The first has the
    cell's own; the others differ, because the same prompts again might be served from a cache."""
    number = (attempt - 1) * cell.repeats + repeat
    if number == 1:
        return cell
    return cell.model_copy(update={"seed": seed_of(cell.deployment, cell.id, number)})


def seed_of(deployment: str, cell_id: str, number: int = 1) -> int:
    """The seed of a cell's prompts, from its names and the number of its run alone: 0 to
    2**31 - 1."""
    name = f"{deployment}/{cell_id}" + (f"/{number}" if number > 1 else "")
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
