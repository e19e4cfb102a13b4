"""Known failures: what fails, why, where it is tracked, and until when that is put up with.

`[[xfail]]` tables in a references file. While an entry holds, a failure it names is shown and
keeps nothing from acceptance; once it expires the failure counts again. A waiver must not outlive
its defect, so what holds although it is listed is reported, too.
"""

from __future__ import annotations

import datetime  # noqa: TC003 (pydantic needs it at run time)
import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, ValidationError

from acceptance.errors import InputError
from acceptance.judging.judgement import Frozen, Judgement, Outcome
from acceptance.judging.reference import Condition, holds
from acceptance.judging.references import read_tables, reference_files, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class KnownFailure(Frozen):
    """One entry. deployment, check, metric: globs; check is a test's name without parameters.
    conditions: as of a reference, such as workload and batch. reason: what goes wrong. issue: URL,
    or `project#number`. expires: the last day on which it is put up with."""

    model_config = ConfigDict(strict=True)

    deployment: str = Field(min_length=1)
    check: str = "*"
    metric: str = "*"
    conditions: dict[str, Condition] = Field(default_factory=dict)
    reason: str = Field(min_length=1)
    issue: str = Field(min_length=1)
    expires: datetime.date
    file: str = Field(default="", exclude=True)

    def applies(self, deployment: str, check: str, metric: str, conditions: dict[str, Any]) -> bool:
        """Whether this entry speaks of that check."""
        return (
            fnmatch.fnmatchcase(deployment, self.deployment)
            and fnmatch.fnmatchcase(check, self.check)
            and fnmatch.fnmatchcase(metric, self.metric)
            and all(k in conditions and holds(conditions[k], w) for k, w in self.conditions.items())
        )

    def expired(self, today: datetime.date) -> bool:
        """Whether its last day is over."""
        return today > self.expires

    @property
    def told(self) -> str:
        """For people: reason, issue and date."""
        return f"{self.reason} ({self.issue}), put up with until {self.expires}"


@dataclass(frozen=True)
class Ruling:
    """What becomes of a judgement. excused: a known failure; it must not fail its test.
    unexpected: it holds although it is listed."""

    judgement: Judgement
    known: KnownFailure | None = None
    excused: bool = False
    unexpected: bool = False


def load_known(paths: Sequence[Path] = ()) -> list[KnownFailure]:
    """The `[[xfail]]` entries of the shipped references files, then of `paths`. Raises InputError
    naming file, entry and key."""
    return [entry for file in reference_files(paths) for entry in _load(file)]


def rule(
    judgement: Judgement,
    known: Iterable[KnownFailure],
    *,
    deployment: str,
    check: str,
    today: datetime.date,
    **conditions: Any,
) -> Ruling:
    """The judgement in the light of what is known to fail.

    A failure that an entry still covers becomes UNGATED and not required, with the entry in its
    reason. One whose every entry has expired stays a failure and says so. INVALID and NOT_RUN are
    never excused: nothing was seen to fail. A check that holds keeps its outcome and says that
    the entry can go.
    """
    metric = judgement.measurement.name
    fits = [entry for entry in known if entry.applies(deployment, check, metric, conditions)]
    if not fits:
        return Ruling(judgement)
    entry = max(fits, key=lambda fit: fit.expires)
    if judgement.outcome in (Outcome.PASS, Outcome.MARGINAL):
        told = f"holds although it is a known failure: {entry.told}; remove the entry"
        return Ruling(_said(judgement, told), entry, unexpected=True)
    if judgement.outcome is not Outcome.FAIL:
        return Ruling(judgement, entry)
    if entry.expired(today):
        told = f"a known failure whose time is over: {entry.told}"
        return Ruling(_said(judgement, told), entry)
    said = _said(judgement, f"known failure: {entry.told}")
    update = {"outcome": Outcome.UNGATED, "required": False}
    return Ruling(said.model_copy(update=update), entry, excused=True)


def _said(judgement: Judgement, told: str) -> Judgement:
    reason = f"{judgement.reason}; {told}" if judgement.reason else told
    return judgement.model_copy(update={"reason": reason})


def _load(file: Path) -> list[KnownFailure]:
    asked = f"reading known failures from {file}"
    loaded = []
    for number, entry in enumerate(read_tables(file, "xfail"), start=1):
        where = f"{file}, xfail {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{where}: is not a table", asked=asked)
        if "file" in entry:
            raise InputError(f"{where}: unknown key 'file'", asked=asked)
        try:
            loaded.append(KnownFailure.model_validate({**entry, "file": file.name}))
        except ValidationError as error:
            raise refused(where, error.errors(), KnownFailure, asked) from error
    return loaded
