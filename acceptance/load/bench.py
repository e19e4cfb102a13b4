"""One cell of the matrix: warmed up, measured, and recorded with all that its judging needs."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from acceptance.judging.bounds import bounds_for
from acceptance.load.capacity import read_capacity, running_requests
from acceptance.load.cellrun import CellRun, NodeLog, measured_window
from acceptance.load.command import command
from acceptance.load.counters import generated, read_counters, settled_counters
from acceptance.load.pace import deadline_seconds
from acceptance.load.result import read_result
from acceptance.load.warmup import WarmRule, WarmUp, warm_up
from acceptance.load.workloads import take

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from acceptance.deployments.schema import Deployment
    from acceptance.judging.judgement import Limit
    from acceptance.load.engine import Engine
    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

PEAK_EVERY = 2.0  # seconds between readings of the running requests of a queued cell


class Bounds(Protocol):
    """Physical bounds of a cell by metric; see acceptance/judging/bounds.py."""

    def __call__(
        self, deployment: Deployment, workload: str, batch: int, isl: int, osl: int
    ) -> Mapping[str, Limit]: ...


class Tell(Protocol):
    """Hears what is being done: "warming up", "measuring". Called again about twice a second."""

    def __call__(self, stage: str) -> None: ...


def run_cell(
    target: Target,
    cell: Cell,
    run_dir: Path,
    engine: Engine,
    *,
    attempt: int = 1,
    warm: WarmRule | None = None,
    deadline: float | None = None,
    bounds: Bounds = bounds_for,
    tell: Tell = lambda stage: None,
) -> tuple[CellRun, ...]:
    """Warms up, then measures a cell as often as it is declared to be repeated. Writes under
    run_dir/cells, for every repeat: the tool's own JSON, its output, and what that JSON leaves out.

    attempt: counts from 1; every attempt and repeat has other prompts, which no cache can know.
    deadline: seconds for the client, and for one warm-up request; by default from the cell's
    expected duration. Raises ServerError when the server dies or hangs, ObservationError when the
    client does or its result cannot be read. Failed requests raise nothing: see validity.py.
    """
    folder = (run_dir / "cells").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    deadline = deadline or deadline_seconds(target.deployment, cell)
    command(target, cell, folder)  # without a client there is nothing to warm up for
    had = generated(read_counters(target))
    tell("warming up")
    warmed = warm_up(target, cell, deadline, warm)
    made: list[CellRun] = []
    for repeat in range(1, cell.repeats + 1):
        taken = take(cell, attempt, repeat)
        settled = generated(made[-1].after) if made else _after_warm_up(had, warmed)
        measuring = _Measuring(target, engine, folder, attempt, repeat, deadline, bounds, tell)
        made.append(measuring.run(taken, warmed, settled))
    return tuple(made)


class _Measuring:
    """One repeat of one attempt."""

    def __init__(
        self,
        target: Target,
        engine: Engine,
        folder: Path,
        attempt: int,
        repeat: int,
        deadline: float,
        bounds: Bounds,
        tell: Tell,
    ) -> None:
        self.target, self.engine, self.folder = target, engine, folder
        self.attempt, self.repeat = attempt, repeat
        self.deadline, self.bounds, self.tell = deadline, bounds, tell
        self.peak: int | None = None
        self._queued = False
        self._peak_read = 0.0

    def run(self, cell: Cell, warmed: WarmUp, settled: float | None) -> CellRun:
        """See run_cell. settled: tokens that were generated until now; None where nobody knows."""
        target, name = self.target, file_name(cell, self.attempt, self.repeat)
        result_file = self.folder / f"{name}.json"
        client_log = self.folder / f"{name}.client.log"
        result_file.unlink(missing_ok=True)  # an older file must never be read as this run's
        argv = command(target, cell, result_file)
        target.check()
        capacity = read_capacity(target, cell)
        self._queued = capacity is not None and cell.batch > capacity.fits
        self.tell("measuring")  # before the window: whoever looks at the server stops now
        before = settled_counters(target, expected=settled)
        logs = (target.log, *target.node_logs)
        begins, started = [log_size(log) for log in logs], time.time()
        offset = time.time() - time.perf_counter()
        client = self.engine.run(target, argv, client_log, self.deadline, self._check)
        ended = time.time()
        target.check()
        result = read_result(result_file)
        had = generated(before)
        after = settled_counters(
            target, expected=None if had is None else had + sum(result.output_lens)
        )
        deployment = target.deployment
        limits = self.bounds(deployment, cell.workload, cell.batch, cell.isl, cell.osl)
        run = CellRun(
            cell=cell,
            lane=deployment.lane.value,
            speed_gated=deployment.scale.speed_gated,
            ranks=deployment.layout.data,
            attempt=self.attempt,
            repeat=self.repeat,
            engine=self.engine.name,
            client=client,
            window=measured_window(result, started, ended, offset),
            client_seconds=ended - started,
            argv=argv,
            result_file=result_file,
            client_log=client_log,
            server_log=target.log,
            before=before,
            after=after,
            log_span=(begins[0], log_size(target.log)),
            node_logs=tuple(
                NodeLog(node=node, path=log, span=(begins[node], log_size(log)))
                for node, log in enumerate(target.node_logs, 1)
            ),
            capacity=capacity,
            peak_running=self.peak,
            bounds={n: limit for n, limit in limits.items() if self._bound_holds(n)},
            warmup=warmed,
            result=result,
        )
        beside = run.model_dump_json(exclude={"result"}, indent=1)
        (self.folder / f"{name}.run.json").write_text(beside + "\n", encoding="utf-8")
        return run

    def _bound_holds(self, metric: str) -> bool:
        """A step of a queued cell serves fewer requests than the bound counts."""
        return not (self._queued and metric.startswith("tpot"))

    def _check(self) -> None:
        self.target.check()
        self.tell("measuring")
        # Only where speed is not judged: a reading costs the server some milliseconds.
        if self._queued and time.monotonic() - self._peak_read >= PEAK_EVERY:
            self._peak_read = time.monotonic()
            running = running_requests(self.target)
            if running is not None:
                self.peak = max(self.peak or 0, running)


def _after_warm_up(had: float | None, warmed: WarmUp) -> float | None:
    """Tokens generated when its requests are counted; None where that cannot be foretold."""
    if had is None or warmed.failed:
        return None
    return had + len(warmed.waves) * warmed.requests * warmed.osl


def file_name(cell: Cell, attempt: int = 1, repeat: int = 1) -> str:
    """The stem of a cell's files: `fp8-8xh200-tp-ep.balanced-b1.attempt2.repeat3`."""
    parts = [f"{cell.deployment}.{cell.id}"]
    parts += [f"attempt{attempt}"] if attempt > 1 else []
    parts += [f"repeat{repeat}"] if repeat > 1 else []
    return ".".join(parts)


def log_size(log: Path | None) -> int:
    """Bytes in a log of the server so far; 0 when there is none to read."""
    with contextlib.suppress(OSError):
        return log.stat().st_size if log else 0
    return 0
