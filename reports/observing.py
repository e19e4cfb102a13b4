"""What a recorded run observed, as comparison and calibration take it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from acceptance.judging.observed import Observed
from reports.ruling import label, selected
from reports.schema import JudgementRecord

if TYPE_CHECKING:
    from reports.reading import Results
    from reports.schema import Check, RunRecord


def observations(results: Results, name: str) -> list[Observed]:
    """Every judgement of a run, in order. name: of the run, unique among those it is put beside;
    give the repetitions within one run names of their own."""
    digests = {deployment.name: deployment.digest for deployment in selected(results.records)}
    common = identity_of(results.run_on)
    return [
        Observed(
            run=name,
            deployment=record.check.deployment,
            lane=record.check.lane,
            identity={"digest": digests.get(record.check.deployment, ""), **common},
            area=record.check.area,
            check=label(record.check),
            judgement=record.judgement,
            conditions=_conditions(record.check, record),
            attempt=record.attempt,
        )
        for record in results.records
        if isinstance(record, JudgementRecord)
    ]


def identity_of(run: RunRecord | None) -> dict[str, str]:
    """What repetitions share: neither host nor GPUs by UUID, for a fleet is one site."""
    if run is None:
        return {}
    gpus = Counter(gpu.name for gpu in run.gpus)
    return {
        "vllm": run.vllm or "",
        "driver": run.driver or "",
        "gpus": ", ".join(f"{count}x {name}" for name, count in sorted(gpus.items())),
    }


def _conditions(check: Check, record: JudgementRecord) -> dict[str, object]:
    told = {"profile": check.profile} if check.profile else {}
    return {**told, **record.conditions}
