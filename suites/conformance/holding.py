"""How a conformance test says what it found, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures.judging import not_applicable, unobservable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from acceptance.serving.differences import Comparison
    from fixtures.judging import RecordCheck

AS_SPECIFIED = "as specified"


def specified(record_check: RecordCheck, problems: Sequence[str]) -> None:
    """Fails naming every problem."""
    actual = "; ".join(problems) or AS_SPECIFIED
    record_check(expected=AS_SPECIFIED, actual=actual)
    assert not problems, actual


def as_asked(comparisons: Mapping[str, Comparison], name: str, record_check: RecordCheck) -> None:
    """Fails unless the live server is what was asked in this one thing."""
    found = comparisons.get(name)
    if found is None:
        not_applicable(f"the deployment leaves {name} to vLLM")
    if not found.observable:
        unobservable("log", f"{name} is told by the server's log alone")
    record_check(expected=found.asked, actual=found.live)
    assert found.agrees, f"{name}: asked {found.asked}, the server says {found.live}"
