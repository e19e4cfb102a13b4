"""The 87 checks, the tests that say which they are, and the document made of both."""

from __future__ import annotations

import pytest

from suites.checklist import DOCUMENT, Proof, check, checklist, document, proofs

NUMBERS = range(1, 88)
INFORM = (6, 11, 31, 41, 49, 51, 52, 64, 74, 76, 84)


def of(number: int) -> list[Proof]:
    return [proof for proof in proofs() if number in proof.numbers]


def test_all_numbers_are_there() -> None:
    assert [item.number for item in checklist()] == list(NUMBERS)
    assert [item.number for item in checklist() if item.kind == "inform"] == list(INFORM)
    assert {item.kind for item in checklist()} == {"gate", "inform"}


@pytest.mark.parametrize("number", NUMBERS)
def test_every_check_has_a_test(number: int) -> None:
    assert of(number), "no test of suites/ carries this number"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_gate_rejects_and_what_informs_does_not(number: int) -> None:
    """A gate may have tests beside it that only show. 76 is a gate as far as the server's life
    goes."""
    found = of(number)
    if number in INFORM and number != 76:
        assert all(proof.inform for proof in found)
    else:
        assert any(not proof.inform for proof in found)


def test_every_proof_says_what_it_does_not_prove() -> None:
    silent = [proof.where for proof in proofs() if not (proof.holds and proof.not_proven)]
    assert silent == []


def test_the_document_is_in_step() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: python -m suites.checklist"


def test_numbers_that_no_check_has_are_refused() -> None:
    for numbers in ((), (0,), (88,), (1, 99)):
        with pytest.raises(ValueError, match="no check has the number"):
            check(*numbers)
    marked = check(17, inform=True)(test_all_numbers_are_there)
    assert (marked.checks, marked.informs) == ((17,), True)  # type: ignore[attr-defined]
