"""What the report shows, drawn from the records and from what the run's folder holds beside them;
the templates only lay it out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.judging.references import load_references
from acceptance.judging.verdict import RunVerdict, Tally, Verdict
from reports import ruling
from reports.capabilities import Capability, capabilities
from reports.cells import CellView, cell_views
from reports.digest import Digest, digest_of
from reports.facts import facts, identity
from reports.failures import Failure, failures
from reports.history import Part, Session, history, parts
from reports.memory import Capacity, Timeline, capacities, timelines
from reports.schema import JudgementRecord, SelectedDeployment
from reports.shares import Shares, shares
from reports.starts import Start, starts
from reports.text import LANES

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.judging.reference import Reference
    from reports.reading import Results

TONES = {Verdict.ACCEPTED: "good", Verdict.REJECTED: "bad", Verdict.INCOMPLETE: "short"}
SAYS = {
    Verdict.REJECTED: "A limit was crossed, a server failed, or a test broke.",
    Verdict.INCOMPLETE: "Nothing failed, yet something required did not run, was invalid, or had "
    "no limit to be judged by.",
}
HELD_SAYS = {
    Lane.FULL: "Every required check of every selected deployment held its limit.",
    Lane.SLICE: "Every required check held its limit on one GPU, with few layers or a tiny model.",
    Lane.REHEARSAL: "Every required check held its limit on a CPU with a tiny checkpoint.",
    Lane.SIMULATED: "Every required check held its limit against a simulated server.",
}


@dataclass(frozen=True)
class DeploymentView:
    """A deployment's row, with its servers."""

    tally: Tally
    selected: SelectedDeployment | None
    tone: str
    starts: tuple[Start, ...]

    @property
    def commands(self) -> dict[str, str]:
        """Each command that started its servers, once, with the profile it was for."""
        return {s.record.command: s.record.profile for s in self.starts if s.record.command}


@dataclass(frozen=True)
class Page:
    """The whole report. run_dir: None when only records are at hand."""

    results: Results
    run_dir: Path | None = None

    @cached_property
    def verdict(self) -> RunVerdict:
        """What the records support."""
        return ruling.verdict_of(self.results)

    @property
    def tone(self) -> str:
        """good, bad or short; other where all held in a lane that accepts nothing."""
        if self.verdict.accepted and not self.full:
            return "other"
        return TONES[self.verdict.verdict]

    @property
    def says(self) -> str:
        """The verdict in a sentence."""
        if self.verdict.accepted and self.verdict.lane is not None:
            return HELD_SAYS[self.verdict.lane]
        return SAYS[self.verdict.verdict]

    @property
    def full(self) -> bool:
        """Whether this is the lane that accepts; every other is labelled everywhere."""
        return self.verdict.lane is Lane.FULL

    @property
    def lane(self) -> str:
        """The lane's name; empty when nothing was selected."""
        return self.verdict.lane.value if self.verdict.lane else ""

    @property
    def banner(self) -> str:
        """What the lane proves, unless it is the full one."""
        return LANES[self.verdict.lane] if self.verdict.lane and not self.full else ""

    @cached_property
    def failures(self) -> list[Failure]:
        """What went wrong, root causes first."""
        return failures(self.results.records, self.run_dir)

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """What stands beside the verdict."""
        return facts(self.results)

    @cached_property
    def identity(self) -> list[tuple[str, str]]:
        """The rest of the run's identity."""
        return identity(self.results)

    @cached_property
    def digest(self) -> Digest | None:
        """Of results.jsonl as it is now; None without a folder."""
        return digest_of(self.run_dir) if self.run_dir is not None else None

    @cached_property
    def selected(self) -> dict[str, SelectedDeployment]:
        """Deployments by name."""
        return {d.name: d for d in ruling.selected(self.results.records)}

    @cached_property
    def starts(self) -> list[Start]:
        """Every start of a server."""
        return starts(self.results.records, self.run_dir)

    @cached_property
    def deployments(self) -> list[DeploymentView]:
        """Every deployment, and the run itself where something concerns it."""
        return [
            DeploymentView(
                tally=tally,
                selected=self.selected.get(tally.deployment),
                tone=TONES[tally.verdict],
                starts=tuple(s for s in self.starts if s.record.deployment == tally.deployment),
            )
            for tally in self.verdict.tallies
        ]

    @cached_property
    def cells(self) -> list[CellView]:
        """The benchmark matrix."""
        known = self.selected.values()
        return cell_views(self.results.records, known, self.run_dir, _published)

    @cached_property
    def shares(self) -> list[Shares]:
        """What each engine of a deployment with several generated."""
        return shares(self.cells)

    @cached_property
    def capabilities(self) -> list[Capability]:
        """All checks that are no cells."""
        shown = {
            id(record)
            for record in self.results.records
            if isinstance(record, JudgementRecord)
            and (record.check.deployment, *_cell(record)) in self._places
        }
        return capabilities(self.results.records, shown)

    @cached_property
    def _places(self) -> set[tuple[str, object, object]]:
        return {(cell.deployment, cell.workload, cell.batch) for cell in self.cells}

    @cached_property
    def timelines(self) -> list[Timeline]:
        """Memory over time."""
        return timelines(self.results.records, self.run_dir)

    @cached_property
    def capacities(self) -> list[Capacity]:
        """The KV caches."""
        return capacities(self.results.records)

    @cached_property
    def sessions(self) -> list[Session]:
        """What the run was put together from."""
        return history(self.results)

    @cached_property
    def parts(self) -> list[Part]:
        """Expected and actual time."""
        return parts(self.results.records)

    @cached_property
    def headroom(self) -> list[JudgementRecord]:
        """Free memory of each GPU in each phase."""
        return [
            r
            for r in self.results.records
            if isinstance(r, JudgementRecord) and r.judgement.measurement.name == "headroom_gib"
        ]


def _cell(record: JudgementRecord) -> tuple[object, object]:
    if record.check.area != "performance":
        return None, None
    return record.conditions.get("workload"), record.conditions.get("batch")


def draw(results: Results, run_dir: Path | None = None) -> Page:
    """The report of these results."""
    return Page(results, run_dir)


@cache
def _published() -> list[Reference]:
    """Figures of the same hardware that others published, as shipped with the suite."""
    return [entry for entry in load_references() if entry.advisory]
