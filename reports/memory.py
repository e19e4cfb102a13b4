"""GPU memory over a run, and what the KV cache holds, as the report shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from acceptance.deployments.nodes import gpu_telemetries
from acceptance.gpus.kv import GIB
from reports.reading import with_gpus
from reports.schema import JudgementRecord, RunRecord, ServerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from acceptance.judging.judgement import Outcome
    from reports.schema import AnyRecord

_N = TypeVar("_N", int, float)
BUCKETS = 300  # readings of one GPU that are drawn; each is the highest of its time
_CHUNK_LIMIT = 256 << 20  # bytes of a telemetry file that are read


@dataclass
class Used:
    """Memory in use of one device over time. total, used: GiB. times: seconds since the epoch."""

    name: str
    total: float
    times: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Span:
    """A named part of the time axis, seconds since the epoch."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """Memory of one deployment's devices. floor, planned: GiB that must, and were meant to, stay
    free; None where nothing says so."""

    deployment: str
    devices: tuple[Used, ...]
    phases: tuple[Span, ...]
    cells: tuple[Span, ...]
    floor: float | None
    planned: float | None
    gpus: bool = True


@dataclass(frozen=True)
class Capacity:
    """The KV cache of one engine. longest: tokens of a request; concurrency: of such requests."""

    deployment: str
    engine: str
    tokens: int | None
    bytes_per_token: float | None
    available_gib: float | None
    longest: int | None
    concurrency: float | None
    outcome: Outcome


def timelines(records: Sequence[AnyRecord], run_dir: Path | None) -> list[Timeline]:
    """Of every deployment whose telemetry is still in the run's folder."""
    if run_dir is None:
        return []
    run = with_gpus(next((r for r in records if isinstance(r, RunRecord)), None), records)
    names = {gpu.uuid: f"GPU {gpu.index}" for gpu in (run.gpus if run else ()) if gpu.uuid}
    found = []
    deployments = list(
        dict.fromkeys(d.name for r in records if isinstance(r, RunRecord) for d in r.deployments)
    )
    for deployment in deployments:
        paths = [[run_dir / "telemetry" / f"{deployment}.jsonl"]]
        paths.insert(0, gpu_telemetries(run_dir, deployment))
        paths += [[run_dir / "telemetry.jsonl"]] if len(deployments) == 1 else []
        for files in paths:
            devices = [d for d in _of_all(files, names) if len(d.times) > 1]
            if devices:
                found.append(_timeline(deployment, devices, records))
                break
    return found


def _of_all(files: Sequence[Path], names: dict[str, str]) -> list[Used]:
    """Devices of all files; of several, which are a node's each, with its number."""
    if len(files) == 1:
        return _read(files[0], names)
    found = [_read(path, names) for path in files]
    for number, devices in enumerate(found):
        for device in devices:
            device.name = f"node {number}, {device.name}"
    return [device for devices in found for device in devices]


def _timeline(deployment: str, devices: list[Used], records: Sequence[AnyRecord]) -> Timeline:
    mine = [
        r for r in records if isinstance(r, JudgementRecord) and r.check.deployment == deployment
    ]
    rooms = [r.judgement for r in mine if r.judgement.measurement.name == "headroom_gib"]
    floors = [j.limit.lower for j in rooms if j.limit is not None and j.limit.lower is not None]
    plans = [p for j in rooms if isinstance(p := j.measurement.evidence.get("planned_gib"), float)]
    cells: dict[str, Span] = {}
    for record in mine:
        window = record.judgement.measurement.window
        cell = record.judgement.measurement.evidence.get("cell")
        if record.check.area == "performance" and window is not None and cell:
            cells.setdefault(str(cell), Span(str(cell), window.start, window.end))
    return Timeline(
        deployment=deployment,
        devices=tuple(devices),
        phases=tuple(_phases(records, deployment)),
        cells=tuple(sorted(cells.values(), key=lambda span: span.start)),
        floor=max(floors, default=None),
        planned=max(plans, default=None),
        gpus=any("GPU" in device.name for device in devices),
    )


def _phases(records: Sequence[AnyRecord], deployment: str) -> Iterator[Span]:
    """Phases of each start, laid end to end before the moment it was ready."""
    for record in records:
        if (
            isinstance(record, ServerRecord)
            and record.deployment == deployment
            and record.outcome == "ready"
        ):
            at = record.time - sum(record.phases.values())
            for phase, seconds in record.phases.items():
                if seconds > 0:
                    yield Span(phase, at, at + seconds)
                at += seconds


def _read(path: Path, names: dict[str, str]) -> list[Used]:
    """Devices of a telemetry file: of GPUs as acceptance/gpus/telemetry.py describes it, or of the
    host, whose lines tell used bytes. What cannot be read is passed over."""
    devices: list[Used] = []
    try:
        if path.stat().st_size > _CHUNK_LIMIT:
            return []
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if '"rest"' not in line[:60]:
                    _take(devices, line, names)
    except OSError:
        return []
    return [_thin(device) for device in devices]


def _take(devices: list[Used], line: str, names: dict[str, str]) -> None:
    try:
        told: dict[str, Any] = json.loads(line)
        kind = told.get("kind")
        if kind == "begin":
            devices[:] = [
                Used(names.get(uuid, f"GPU {place}"), (gpu or {}).get("total", 0) / GIB)
                for place, (uuid, gpu) in enumerate(told["gpus"].items())
            ]
        elif kind == "memory":
            for device, free in zip(devices, told["free"], strict=True):
                if free is not None:
                    used = device.total - free / GIB
                    device.times.append(float(told["t"]))
                    device.used.append(used)
        elif kind is None and told.get("device") == "host":
            if not devices:
                devices.append(Used("server's processes", 0.0))
            moment, used = float(told["t"]), told["used"] / GIB
            devices[0].times.append(moment)
            devices[0].used.append(used)
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # a line that was being written


def _thin(device: Used) -> Used:
    """At most BUCKETS readings, of each stretch of time the highest."""
    if len(device.times) <= BUCKETS:
        return device
    start, wide = device.times[0], (device.times[-1] - device.times[0]) / BUCKETS or 1.0
    best: dict[int, tuple[float, float]] = {}
    for moment, used in zip(device.times, device.used, strict=True):
        bucket = int((moment - start) / wide)
        if bucket not in best or used > best[bucket][1]:
            best[bucket] = moment, used
    kept = [best[bucket] for bucket in sorted(best)]
    return Used(device.name, device.total, [t for t, _ in kept], [u for _, u in kept])


def capacities(records: Sequence[AnyRecord]) -> list[Capacity]:
    """One line for each engine of each deployment."""
    found: dict[tuple[str, str], dict[str, JudgementRecord]] = {}
    for record in records:
        if isinstance(record, JudgementRecord):
            measurement = record.judgement.measurement
            if measurement.name in ("kv_cache_tokens_off", "max_concurrency"):
                engine = str(measurement.evidence.get("engine", "0"))
                mine = found.setdefault((record.check.deployment, engine), {})
                mine[measurement.name] = record
    return [_capacity(*key, records) for key, records in found.items()]


def _capacity(deployment: str, engine: str, records: dict[str, JudgementRecord]) -> Capacity:
    size, fits = records.get("kv_cache_tokens_off"), records.get("max_concurrency")
    told = size.judgement.measurement.evidence if size else {}
    asked = fits.judgement.measurement.evidence if fits else {}
    value = fits.judgement.measurement.value if fits else None
    available = told.get("available_bytes")
    outcomes = [r.judgement.outcome for r in records.values()]
    return Capacity(
        deployment=deployment,
        engine=engine,
        tokens=_number(told.get("reported_tokens"), int),
        bytes_per_token=_number(told.get("bytes_per_token"), float),
        available_gib=available / GIB if isinstance(available, int | float) else None,
        longest=_number(asked.get("max_model_len"), int),
        concurrency=float(value) if isinstance(value, int | float) else None,
        outcome=next((o for o in outcomes if o not in ("PASS", "MARGINAL")), outcomes[0]),
    )


def _number(value: object, kind: type[_N]) -> _N | None:
    return kind(value) if isinstance(value, int | float) else None
