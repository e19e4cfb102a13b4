"""Which test is which of the 87 checks, and the document made from both.

    @check(17)
    def test_...

    @check(49, inform=True)   # is shown, and rejects nobody
    def test_...

`python -m suites.checklist` writes docs/conformance.md.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import suites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
DATA = ROOT / "acceptance" / "conformance" / "checklist.toml"
DOCUMENT = ROOT / "docs" / "conformance.md"
Test = TypeVar("Test", bound="Callable[..., Any]")

HEAD = """# Conformance and correctness: what is checked

Written by `python -m suites.checklist` from the tests themselves; do not edit.

A *gate* that fails rejects the deployment; what *informs* is shown and rejects nobody. A check that
needs something the deployment does not have (a parser, trained weights, a prefix cache, a key) is
skipped with that reason, which the verdict counts. What the deployment says it has and the server
does not show is a failure. The live configuration is read first: of a server that is not the one
asked for, nothing else is judged.
"""


@dataclass(frozen=True)
class Item:
    """One of the checks. kind: gate or inform. holds: what must, in one line."""

    number: int
    group: str
    kind: str
    holds: str


@dataclass(frozen=True)
class Proof:
    """A test of suites/. numbers: the checks it is; empty for one beside the list. The three texts
    are its docstring's."""

    where: str
    numbers: tuple[int, ...]
    inform: bool
    holds: str
    not_proven: str
    caught: str


def check(*numbers: int, inform: bool = False) -> Callable[[Test], Test]:
    """Says which checks the decorated test is. inform: it never rejects a deployment.

    Raises ValueError for a number that no check has."""
    known = {item.number for item in checklist()}
    if not numbers or not known.issuperset(numbers):
        raise ValueError(f"no check has the number {sorted(set(numbers) - known) or 'none'}")

    def marking(test: Test) -> Test:
        test.checks, test.informs = numbers, inform  # type: ignore[attr-defined]
        return test

    return marking


@cache
def checklist() -> tuple[Item, ...]:
    """The 87 checks, by number."""
    rows = tomllib.loads(DATA.read_text(encoding="utf-8"))["check"]
    return tuple(sorted((Item(**row) for row in rows), key=lambda item: item.number))


def proofs() -> list[Proof]:
    """Every test with a number, and every other one of conformance."""
    found = []
    for name in _modules():
        for test in vars(importlib.import_module(name)).values():
            own = getattr(test, "__module__", "") == name
            if not own or not getattr(test, "__name__", "").startswith("test_"):
                continue
            numbers = getattr(test, "checks", ())
            if numbers or name.startswith("suites.conformance."):
                found.append(_proof(name, test, numbers))
    return found


def _modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(suites.__path__, "suites."):
        if module.name.rpartition(".")[2].startswith("test_"):
            yield module.name


def _proof(module: str, test: Any, numbers: tuple[int, ...]) -> Proof:
    text = " ".join((test.__doc__ or "").split())
    parts = re.split(r"(Does not prove|Would have caught)\b", text)
    told = dict(zip(parts[1::2], (part.strip(" .") for part in parts[2::2]), strict=True))
    return Proof(
        where=f"{module.removeprefix('suites.').replace('.', '/')}.py::{test.__name__}",
        numbers=numbers,
        inform=getattr(test, "informs", False),
        holds=parts[0].strip(),
        not_proven=told.get("Does not prove", ""),
        caught=told.get("Would have caught", ""),
    )


def document() -> str:
    """docs/conformance.md."""
    known = proofs()
    lines = [HEAD]
    groups = dict.fromkeys(item.group for item in checklist())
    for group in groups:
        lines += [f"## {group}", ""]
        for item in checklist():
            if item.group == group:
                lines += _told(item, [proof for proof in known if item.number in proof.numbers])
    lines += ["## Beside the list", "", "Gates, as those above.", ""]
    for proof in known:
        if not proof.numbers:
            lines += [f"- `{proof.where}`: {_sentences(proof)}"]
    return "\n".join(lines).rstrip() + "\n"


def _told(item: Item, tests: list[Proof]) -> Iterator[str]:
    yield f"**{item.number}** ({item.kind}) {item.holds}."
    yield ""
    for proof in tests:
        shown = ", shown only" if proof.inform and item.kind == "gate" else ""
        yield f"- `{proof.where}`{shown}: {_sentences(proof)}"
    if not tests:
        yield "- no test"
    yield ""


def _sentences(proof: Proof) -> str:
    said = [proof.holds]
    said += [f"*Does not prove* {proof.not_proven}."] if proof.not_proven else []
    said += [f"*Would have caught* {proof.caught}."] if proof.caught else []
    return " ".join(said)


if __name__ == "__main__":  # by its own name, so that there is one of each class
    from suites.checklist import document

    DOCUMENT.write_text(document(), encoding="utf-8")
