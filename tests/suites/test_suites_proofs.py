"""Every check below suites/ is proven: it passes where all is well and fails where it should."""

from __future__ import annotations

import pytest
from proofs import broken, checks, healthy, named

import suites.memory.test_memory as memory


def test_no_check_is_without_a_proof() -> None:
    """A check has both decorators of tests/proofs.py, or a place in another test of ours, such as
    the tables of tests/conformance, which have such a test of their own."""
    proofs = named()
    bare = {check for check in checks() if not proofs.get(check)}
    assert bare == set(), "no test of ours names these checks: see tests/proofs.py"
    half = {
        check: sorted(how)
        for check, how in proofs.items()
        if how & {"healthy", "broken"} and not {"healthy", "broken"} <= how
    }
    assert half == {}, "these checks have one half of a proof"


def test_no_proof_is_of_a_check_that_is_gone() -> None:
    gone = {check for check, how in named().items() if how & {"healthy", "broken"}} - checks()
    assert gone == set()


def test_the_lists_are_not_empty() -> None:
    assert len(checks()) > 60
    assert "suites.memory.test_memory.test_resident_memory_stays_in_budget" in checks()


def test_a_proof_names_a_check() -> None:
    for decorator in (healthy, broken):
        with pytest.raises(AssertionError):
            decorator()
        with pytest.raises(AssertionError):
            decorator(test_a_proof_names_a_check)
        assert decorator(memory.test_resident_memory_stays_in_budget)(checks) is checks
