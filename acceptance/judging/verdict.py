"""What a verdict rests on, and what it says. decide.py gets from one to the other."""

from __future__ import annotations

from enum import StrEnum

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Frozen, Outcome


class Verdict(StrEnum):
    """ACCEPTED stands for the lane's own word: only the full lane accepts a deployment."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    INCOMPLETE = "INCOMPLETE"


WORDS = {
    Lane.FULL: "ACCEPTED",
    Lane.SLICE: "SLICE PASSED",
    Lane.REHEARSAL: "REHEARSED",
    Lane.SIMULATED: "SIMULATED",
}
STRENGTH = (Lane.SIMULATED, Lane.REHEARSAL, Lane.SLICE, Lane.FULL)


class Selected(Frozen):
    """A deployment that the run set out to judge."""

    name: str
    lane: Lane


class Judged(Frozen):
    """One outcome. deployment: empty for what concerns the run as a whole.

    check, metric: what was judged, for a person; key: what tells it from the other cells of the
    same check. attempt: which try, from 1. A later attempt replaces an INVALID or NOT_RUN one of
    the same key and metric, and never a FAIL.
    """

    deployment: str
    check: str
    outcome: Outcome
    metric: str = ""
    key: str = ""
    required: bool = True
    attempt: int = 1
    reason: str = ""


class Fault(Frozen):
    """An ERROR: a server that did not start, a test that broke off. what: one line."""

    deployment: str
    what: str


class Facts(Frozen):
    """Everything a verdict rests on.

    finished: the run reached its own end. gaps: other reasons why the record is not whole, such
    as a torn line or a run narrowed to a few tests.
    """

    selected: tuple[Selected, ...] = ()
    judged: tuple[Judged, ...] = ()
    faults: tuple[Fault, ...] = ()
    finished: bool = False
    gaps: tuple[str, ...] = ()


class Tally(Frozen):
    """How one deployment did. optional: of all these, how many were not required and neither
    held nor failed. verdict: this deployment's part in the run's."""

    deployment: str
    lane: Lane | None
    verdict: Verdict
    passed: int = 0
    marginal: int = 0
    failed: int = 0
    errors: int = 0
    invalid: int = 0
    ungated: int = 0
    not_run: int = 0
    optional: int = 0

    @property
    def word(self) -> str:
        """PASSED, REJECTED or INCOMPLETE: only a whole run is ever accepted."""
        return "PASSED" if self.verdict is Verdict.ACCEPTED else self.verdict.value


class RunVerdict(Frozen):
    """verdict: for machines. word: for people, by lane. reasons: for anything short.

    lane: the weakest of the selected deployments, which is what the whole run is worth; None
    when nothing was selected.
    """

    verdict: Verdict
    word: str
    lane: Lane | None
    reasons: tuple[str, ...]
    tallies: tuple[Tally, ...]

    @property
    def accepted(self) -> bool:
        """Whether the run holds everything its lane asks."""
        return self.verdict is Verdict.ACCEPTED
