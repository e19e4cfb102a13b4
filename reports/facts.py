"""Who ran what, where, for how long and at what cost, from the records of a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from reports import ruling
from reports.cells import gpu_count
from reports.history import history
from reports.schema import RunRecord, ServerRecord
from reports.text import duration, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.reading import Results
    from reports.schema import AnyRecord

_REAL = (Lane.FULL, Lane.SLICE)  # lanes that hold GPUs


def gpu_hours(records: Sequence[AnyRecord]) -> float:
    """Hours times GPUs that the servers held: from the begin of each start to its end, or to the
    last record of its session when none was written."""
    selected = {d.name: d for d in ruling.selected(records)}
    last = max((record.time for record in records), default=0.0)
    open_since: dict[tuple[str, str], float] = {}
    total = before = 0.0
    for record in records:
        if isinstance(record, RunRecord):  # what a killed session held, it held no longer
            for (deployment, _), since in open_since.items():
                total += gpu_count(selected.get(deployment)) * (before - since)
            open_since.clear()
        before = record.time
        if not isinstance(record, ServerRecord) or record.lane not in _REAL:
            continue
        key, gpus = (record.deployment, record.profile), gpu_count(selected.get(record.deployment))
        if record.outcome == "ready":
            open_since[key] = record.time - sum(record.phases.values())
        elif key in open_since:
            total += gpus * (record.time - open_since.pop(key))
    for (deployment, _), since in open_since.items():
        total += gpu_count(selected.get(deployment)) * (last - since)
    return total / 3600


def lasted(results: Results) -> float:
    """Seconds of the last invocation."""
    end, run = ruling.last_end(results.records), results.run
    if end is not None:
        return end.duration
    return results.records[-1].time - run.time if run is not None else 0.0


def facts(results: Results) -> list[tuple[str, str]]:
    """What stands beside the verdict: name and value."""
    run, end = results.run_on, ruling.last_end(results.records)
    if run is None:
        return []
    sessions = history(results)
    models = Counter(gpu.name for gpu in run.gpus)
    gpus = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in models.items())
    hours = gpu_hours(results.records)
    took = duration(sum(session.seconds for session in sessions))
    if len(sessions) > 1:
        took += f" in {len(sessions)} sessions"
    return [
        ("Host", run.host or "–"),
        ("GPUs", gpus or "none"),
        ("vLLM", run.vllm or "–"),
        ("Driver", run.driver or "–"),
        ("Tier", run.tier or "–"),
        ("Began", moment(sessions[0].run.time)),
        ("Lasted", took if end else f"{took}, then was cut off"),
        ("GPU-hours", f"{hours:.2f}" if hours else "none"),
        ("Suite", f"{run.suite_version} {run.suite_commit[:12]}".strip()),
    ]


def identity(results: Results) -> list[tuple[str, str]]:
    """The rest of a run's identity."""
    run = results.run_on
    if run is None:
        return []
    gpus = [" ".join(filter(None, (gpu.node, gpu.name, gpu.uuid))) for gpu in run.gpus]
    return [
        ("Platform", run.platform or "–"),
        ("Python", run.python or "–"),
        ("Suite's commit", run.suite_commit or "–"),
        ("GPUs", "; ".join(gpus) or "none"),
        ("Command", " ".join(run.argv)),
    ]
