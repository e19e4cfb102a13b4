"""Where the correctness checks stand in a run."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fixtures.correctness as edge
from acceptance.deployments.load import load_deployments

ROOT = Path(__file__).parents[2]
TP, DP = (load_deployments()[f"rehearsal-{layout}-ep"] for layout in ("tp", "dp"))


def item(area: str, file: str, of: Any, *fixtures: str) -> Any:
    return SimpleNamespace(
        path=ROOT / "suites" / area / f"test_{file}.py",
        callspec=SimpleNamespace(params={"deployment": of}),
        fixturenames=fixtures,
        name=f"{of.name} {area} {file} {' '.join(fixtures)}".strip(),
    )


def run_of(of: Any) -> list[Any]:
    correctness = ["accuracy", "agreement", "decode", "isolation", "late", "noise"]
    return [
        item("conformance", "chat", of),
        *(item("correctness", name, of) for name in correctness if name != "late"),
        item("correctness", "late", of, "after_matrix"),
        item("correctness", "late", of, "after_server"),
        item("memory", "memory", of),
        item("performance", "matrix", of),
        item("resilience", "shutdown", of),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_floor_first_then_what_it_is_the_floor_of_then_what_looks_back(seed: int) -> None:
    items = [*run_of(TP), *run_of(DP)]
    mine = [n for n, one in enumerate(items) if "correctness" in one.name]
    for of in (TP, DP):  # pytest collects files in the order of their names; any will do
        places = [n for n in mine if items[n].name.startswith(of.name)]
        shuffled = [items[n] for n in places]
        random.Random(seed).shuffle(shuffled)
        for place, one in zip(places, shuffled, strict=True):
            items[place] = one
    edge.pytest_collection_modifyitems(items)
    expected = [
        "conformance chat",
        *(f"correctness {n}" for n in ("noise", "agreement", "decode", "isolation", "accuracy")),
        "memory memory",
        "performance matrix",
        "correctness late after_matrix",
        "resilience shutdown",
        "correctness late after_server",
    ]
    assert [one.name for one in items] == [f"{of.name} {n}" for of in (TP, DP) for n in expected]


def test_without_an_end_what_looks_back_comes_last() -> None:
    items = [one for one in run_of(TP) if "resilience" not in one.name]
    edge.pytest_collection_modifyitems(items)
    assert [one.name.rpartition(" ")[2] for one in items[-2:]] == ["after_matrix", "after_server"]


def test_what_looks_back_comes_before_the_memory_suite_ends_the_server() -> None:
    late = [item("correctness", "late", TP, name) for name in ("after_matrix", "after_server")]
    ends = item("memory", "health", TP, "after_end")
    items = [*late, item("memory", "memory", TP), ends]
    edge.pytest_collection_modifyitems(items)
    assert [one.name.rpartition(" ")[2] for one in items] == [
        "memory",
        "after_matrix",
        "after_end",
        "after_server",
    ]


def test_a_run_without_correctness_stays_as_it_is() -> None:
    items = [item("memory", "b", TP), item("memory", "a", TP), item("resilience", "c", TP)]
    before = list(items)
    edge.pytest_collection_modifyitems(items)
    assert items == before


def test_every_file_that_is_ordered_is_there() -> None:
    files = {path.stem.removeprefix("test_") for path in (ROOT / "suites/correctness").glob("*.py")}
    assert set(edge.ORDER) <= files
