"""One judged value of one run, with what tells it from every other: the input of comparison and
calibration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from acceptance.deployments.schema import Lane  # noqa: TC001 (pydantic needs it)
from acceptance.judging.judgement import Frozen, Judgement, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable


DEVICES = ("gpu", "engine", "rank")  # in the evidence of values that there are several of


class Observed(Frozen):
    """run: a name for the run, unique. deployment: empty for what concerns the run as a whole.
    identity: what has to agree for runs to be repetitions of one another, such as the deployment's
    digest, vLLM's version and the GPUs. area, check: where the value comes from; check without the
    deployment. conditions: as references are looked up by. attempt: counts from 1 within a run."""

    run: str
    deployment: str
    lane: Lane | None = None
    identity: dict[str, str] = Field(default_factory=dict)
    area: str = ""
    check: str = ""
    judgement: Judgement
    conditions: dict[str, Any] = Field(default_factory=dict)
    attempt: int = 1

    @property
    def metric(self) -> str:
        """Name of the measurement."""
        return self.judgement.measurement.name

    @property
    def outcome(self) -> Outcome:
        """What was said of it."""
        return self.judgement.outcome

    @property
    def number(self) -> float | None:
        """The value, where it is a finite number and valid."""
        value = self.judgement.measurement.value
        if self.outcome in (Outcome.INVALID, Outcome.NOT_RUN) or isinstance(value, bool):
            return None
        if not isinstance(value, int | float):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    @property
    def workload(self) -> str:
        """Of the cell; empty for what is no cell."""
        return str(self.conditions.get("workload", ""))

    @property
    def batch(self) -> int | None:
        """Of the cell; None for what is no cell."""
        batch = self.conditions.get("batch")
        return batch if isinstance(batch, int) and not isinstance(batch, bool) else None

    @property
    def holder(self) -> str:
        """Which of a run's GPUs, engines or ranks has the value, as it is called there: `GPU 3
        (NVIDIA H200, GPU-...)`; empty where there is but one value."""
        evidence = self.judgement.measurement.evidence
        named = (f"{name} {evidence[name]}" for name in DEVICES if evidence.get(name) is not None)
        return next(named, "").removeprefix("gpu ")

    @property
    def device(self) -> str:
        """The same without what differs from host to host, such as a UUID: `GPU 3`."""
        return self.holder.partition(" (")[0]

    @property
    def key(self) -> tuple[str, str, str, str, int, str]:
        """The same in every run for the same thing observed."""
        profile = str(self.conditions.get("profile", ""))
        cell = f"{profile}|{self.check}"
        return self.deployment, cell, self.metric, self.workload, self.batch or 0, self.device

    @property
    def where(self) -> str:
        """For people: deployment, cell or check, metric, device."""
        cell = f"{self.workload}-b{self.batch}" if self.workload else self.check
        parts = (self.deployment or "run", cell, self.metric, self.device)
        return " ".join(part for part in parts if part)


def last_attempts(observed: Iterable[Observed]) -> list[Observed]:
    """Of every key in every run the last attempt, in order of first appearance."""
    last: dict[tuple[object, ...], Observed] = {}
    for one in observed:
        known = last.setdefault((one.run, *one.key), one)
        if one.attempt >= known.attempt:
            last[one.run, *one.key] = one
    return list(last.values())
