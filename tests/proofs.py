"""Says which test of ours proves which check below suites/: that it passes where all is well, and
that it fails where it should. A check that cannot fail is a defect.

    @healthy(test_memory.test_resident_memory_stays_in_budget)
    def test_...

    @broken(test_memory.test_resident_memory_stays_in_budget)
    def test_...

The decorators change nothing; tests/suites/test_suites_proofs.py reads them.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
Test = TypeVar("Test", bound="Callable[..., Any]")


def healthy(*checks: Callable[..., Any]) -> Callable[[Test], Test]:
    """The decorated test shows each check pass where all is well."""
    return _marks(checks)


def broken(*checks: Callable[..., Any]) -> Callable[[Test], Test]:
    """The decorated test shows each check fail, or say that it cannot know, where it should."""
    return _marks(checks)


def _marks(checks: tuple[Callable[..., Any], ...]) -> Callable[[Test], Test]:
    assert checks, "names no check"
    for check in checks:
        assert check.__module__.startswith("suites."), f"{check} is no check of suites/"
        assert check.__name__.startswith("test_"), f"{check} is no check of suites/"
    return lambda test: test


def checks() -> set[str]:
    """Every check, as in `suites.memory.test_memory.test_resident_memory_stays_in_budget`."""
    found = set()
    for file in sorted((ROOT / "suites").rglob("test_*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{module}.{node.name}")
    return found


def named() -> dict[str, set[str]]:
    """Check to how the suite's own tests name it: "healthy" and "broken" by the decorators,
    "named" in any other way, as in a table of cases."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = dict(_imported(tree))
        marks = {
            id(argument): node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("healthy", "broken")
            for argument in node.args
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = modules.get(node.value.id)
                if module and node.attr.startswith("test_"):
                    found[f"{module}.{node.attr}"].add(marks.get(id(node), "named"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                for module in modules.values():  # as in a table of names
                    found[f"{module}.{node.value}"].add("named")
    return found


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name to module, for every module of suites/ that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("suites.") and alias.asname:
                    yield alias.asname, alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("suites"):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"
