"""The catalogue is whole: it covers what it must, and names what exists."""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from defects_alter import ALTERATIONS
from defects_catalogue import ROWS, Defect, Expected, World, catalogue
from defects_inject import __doc__ as injections
from pydantic import ValidationError

from acceptance.simulation.faults import read_faults

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path.append(str(ROOT / "tests"))
from proofs import checks  # noqa: E402 - of the folder above

ENTRIES = list(catalogue().values())
# `vllm#1`, `owner/name#1`, or that nobody was found to have had it.
ISSUE = re.compile(r"none found|[\w./-]+#\d+")
TOP = {"plugin", "alter", "words", "gpu", "pace"}  # what worlds take out of inject for themselves


def test_it_is_large_enough_and_covers_every_class_and_world() -> None:
    assert len(ENTRIES) >= 60
    assert {defect.row for defect in ENTRIES} == set(ROWS)
    assert {defect.world for defect in ENTRIES} >= set(World)
    assert sum(defect.issue == "none found" for defect in ENTRIES) < len(ENTRIES) / 6


@pytest.mark.parametrize("defect", ENTRIES, ids=lambda d: d.id)
def test_an_entry_names_what_exists(defect: Defect) -> None:
    assert ISSUE.fullmatch(defect.issue), defect.issue
    if defect.expect is None:
        assert defect.undetectable
        return
    re.compile(defect.expect.told)
    for part in defect.select:
        path, _, name = part.partition("::")
        if defect.world is World.SPEED:
            path, name = f"suites/performance/{path}", ""
        assert (ROOT / path).exists(), part
        assert not name or _known(f"{path}::{name}"), part
    if defect.expect.check not in ("server", "*"):
        assert _known(defect.expect.check), defect.expect.check


@lru_cache
def _checks() -> frozenset[str]:
    """Node ids of every check, without parameters."""
    split = (name.rpartition(".") for name in checks())
    return frozenset(f"{module.replace('.', '/')}.py::{name}" for module, _, name in split)


def _known(end: str) -> bool:
    """Whether the end of a node id belongs to a check."""
    pattern = re.compile(".*" + ".*".join(map(re.escape, end.split("*"))))
    return any(pattern.fullmatch(one) for one in _checks())


@pytest.mark.parametrize("defect", ENTRIES, ids=lambda d: d.id)
def test_what_is_injected_can_be(defect: Defect) -> None:
    given = defect.inject
    if "alter" in given:
        assert given["alter"] in ALTERATIONS
    if "simulation" in given:
        read_faults(json.dumps(given["simulation"]))
    for name in given.get("plugin", {}):
        assert name in _breaks(), name
    for key in set(given) - TOP:
        assert re.search(rf"\b{key}\b", injections or ""), (
            f"defects_inject.py tells nothing of {key}"
        )


@lru_cache
def _breaks() -> set[str]:
    """What inside/break_model.py can break; read, because it imports torch."""
    tree = ast.parse((HERE / "inside" / "break_model.py").read_text(encoding="utf-8"))
    [found] = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BREAKS"
    )
    return set(ast.literal_eval(found))


def test_every_alteration_is_part_of_an_entry() -> None:
    used = {defect.inject.get("alter") for defect in ENTRIES}
    assert set(ALTERATIONS) - used == {"none"}


def test_everything_that_breaks_vllm_is_part_of_an_entry() -> None:
    used = {name for defect in ENTRIES for name in defect.inject.get("plugin", {})}
    assert _breaks() == used


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "Not an id"},
        {"row": "nowhere"},
        {"world": None},
        {"inject": {}},
        {"select": ()},
        {"expect": None},
        {"undetectable": "because"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_bad_entry_is_refused(wrong: dict[str, object]) -> None:
    good = ENTRIES[0].model_dump()
    Defect.model_validate(good)
    with pytest.raises(ValidationError):
        Defect.model_validate({**good, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"check": "server"},
        {"outcome": "FAILED"},
        {"rule": "output-length"},
        {"outcome": "REFUSED"},
        {"within": 0},
    ],
    ids=str,
)
def test_a_bad_expectation_is_refused(wrong: dict[str, object]) -> None:
    good = {"check": "test_chat.py::test_shape", "within": 10.0}
    Expected.model_validate(good)
    with pytest.raises(ValidationError):
        Expected.model_validate({**good, **wrong})
