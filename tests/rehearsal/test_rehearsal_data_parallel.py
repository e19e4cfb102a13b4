"""The CPU data-parallel plugin gathers and scatters what vLLM's own collectives would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is in the rehearsal's environment only")

ROOT = Path(__file__).parents[2]
COLUMNS = 3


def case(call: str, rows: list[int], **more: Any) -> dict[str, Any]:
    return {"call": call, "rows": rows, "given": rows, "dtype": "float32", "dim": 0, **more}


CASES = {
    "gather, unequal": case("all_gatherv", [3, 1]),
    "gather, unequal the other way": case("all_gatherv", [1, 4]),
    "gather, one has nothing": case("all_gatherv", [0, 2]),
    "gather, equal": case("all_gatherv", [2, 2]),
    "gather, sizes not given": case("all_gatherv", [2, 2], given=None),
    "gather, bfloat16": case("all_gatherv", [3, 1], dtype="bfloat16"),
    "gather, expert ids": case("all_gatherv", [3, 1], dtype="int32"),
    "gather, several": case("all_gatherv of several", [3, 1]),
    "gather, columns": case("all_gatherv", [2, 2], dim=1),
    # Each rank brings the rows of all, and keeps the sum of its own.
    "scatter, unequal": case("reduce_scatterv", [4, 4], given=[3, 1]),
    "scatter, one has nothing": case("reduce_scatterv", [2, 2], given=[0, 2]),
    "scatter, sizes not given": case("reduce_scatterv", [4, 4], given=None),
    "scatter, bfloat16": case("reduce_scatterv", [4, 4], given=[1, 3], dtype="bfloat16"),
    "scatter, columns": case("reduce_scatterv", [4, 4], given=[3, 1], dim=1),
}


def rows(count: int, rank: int) -> list[list[float]]:
    """As rehearsal_ranks.py makes them."""
    first = 10 * (rank + 1)
    return [[first + COLUMNS * row + column for column in range(COLUMNS)] for row in range(count)]


def gathered(counts: list[int]) -> list[list[float]]:
    return [row for rank, count in enumerate(counts) for row in rows(count, rank)]


def scattered(sizes: list[int], rank: int) -> list[list[float]]:
    total = [
        [a + b for a, b in zip(mine, yours, strict=True)]
        for mine, yours in zip(rows(sum(sizes), 0), rows(sum(sizes), 1), strict=True)
    ]
    start = sum(sizes[:rank])
    return total[start : start + sizes[rank]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks got, by case: two processes over gloo."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "cases").write_text(json.dumps(list(CASES.values())))
    script = Path(__file__).with_name("rehearsal_ranks.py")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [
                *(sys.executable, str(script), str(rank)),
                *(str(folder / name) for name in ("store", "cases", f"out{rank}")),
            ],
            env=env,
        )
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    outs = [json.loads((folder / f"out{rank}").read_text()) for rank in range(2)]
    return [dict(zip(CASES, out, strict=True)) for out in outs]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("gather")])
def test_gather(said: list[dict[str, Any]], name: str) -> None:
    wanted: Any = gathered(CASES[name]["rows"])
    if name == "gather, several":
        wanted = [wanted, [row[0] for row in wanted]]
    if name == "gather, columns":
        wanted = {"error": "all_gatherv on CPU gathers rows only, not dim 1"}
    assert [rank[name] for rank in said] == [wanted, wanted]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("scatter")])
def test_scatter(said: list[dict[str, Any]], name: str) -> None:
    wanted: Any = [scattered(CASES[name]["given"] or [2, 2], rank) for rank in range(2)]
    if name == "scatter, columns":
        wanted = [{"error": "reduce_scatterv on CPU scatters rows only, not dim 1"}] * 2
    assert [rank[name] for rank in said] == wanted
