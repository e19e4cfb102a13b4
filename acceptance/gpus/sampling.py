"""The sampler process: `python -m acceptance.gpus.sampling`, one for the GPUs of one server.

A process of its own, because it must see what happens while pytest is stuck or stopped. It reads
one JSON order from its input ({"uuids", "path", "memory_s", "rest_s", "pid", "mark", "ahead"}; pid
and mark say whose processes are ours, see whose.py; ahead: seconds by which this host's clock is
ahead of the one that the file's times are of), registers for events, writes a line {"ready": true}
to its output, and samples until its input ends: that is also how it ends with pytest, whatever
ended pytest. telemetry.py says what the file holds.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from acceptance.gpus.events import Events
from acceptance.gpus.nvml import open_nvml
from acceptance.gpus.probe import NoNvml, Observed, Unobservable, Violation
from acceptance.gpus.whose import Owner, Whose, described

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acceptance.gpus.probe import Probe

HEARTBEAT = 1.0  # seconds; memory that does not change is written this often


class Sampling:
    """What is asked and written at one moment. clock: seconds since the epoch. owner: of the
    server whose GPUs these are."""

    def __init__(
        self,
        probe: Probe,
        events: Events,
        uuids: Sequence[str],
        file: IO[str],
        owner: Owner,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._probe, self._events, self._uuids = probe, events, tuple(uuids)
        self._owner = owner
        self._file, self._clock = file, clock
        self._told: dict[str, str] = {}  # what could not be observed, so that it is told once
        # Users that were ours a second ago and have not changed: looking one up takes 0.8 ms.
        self._ours: dict[str, dict[tuple[int, int | None], list[object]]] = {}
        self._last: list[int | None] = []
        self._written = 0.0
        self._unwritten = 0
        self.ticks = 0

    def begin(self) -> None:
        """Who is sampled, and which events are registered for."""
        gpus = {}
        for uuid in self._uuids:
            memory = self._probe.memory(uuid)
            answers = {"total": "total", "reserved": "reserved"}
            gpus[uuid] = (
                {}
                if isinstance(memory, Unobservable)
                else {name: getattr(memory, field) for name, field in answers.items()}
            )
        registered = {uuid: _told(kinds) for uuid, kinds in self._events.registered.items()}
        # What starting took, so that the end tells what sampling took.
        self._write(kind="begin", gpus=gpus, registered=registered, cpu_s=_cpu_seconds())

    def memory(self, *, last: bool = False) -> None:
        """Free bytes of each GPU; written when they change, once a second, and at last."""
        self.ticks += 1
        self._unwritten += 1
        free: list[int | None] = []
        for uuid in self._uuids:
            memory = self._probe.memory(uuid)
            if isinstance(memory, Unobservable):
                self._missed(uuid, "memory", memory)
                free.append(None)
            else:
                free.append(memory.free)
        if last or free != self._last or self._clock() - self._written >= HEARTBEAT:
            self._write(kind="memory", samples=self._unwritten, free=free)
            self._last, self._written, self._unwritten = free, self._clock(), 0

    def events(self) -> None:
        """Events since the last time."""
        found = self._events.poll()
        if isinstance(found, Unobservable):
            self._missed("", "events", found)
            return
        for event in found:
            self._write(kind="event", gpu=event.uuid, event=event.kind, code=event.code)

    def rest(self) -> None:
        """Everything else, a line for each GPU."""
        for uuid in self._uuids:
            self._write(kind="rest", gpu=uuid, **self._rest_of(uuid), **self._users_of(uuid))

    def end(self) -> None:
        self._write(kind="end", ticks=self.ticks, cpu_s=_cpu_seconds())

    def _rest_of(self, uuid: str) -> dict[str, object]:
        probe = self._probe
        asked: dict[str, Observed[Any]] = {
            "power_w": probe.power(uuid),
            "energy_j": probe.energy(uuid),
            "temperature_c": probe.temperature(uuid),
            "utilisation": probe.utilisation(uuid),
            "clock_reasons": probe.clock_reasons(uuid),
            "ecc": probe.ecc(uuid),
            "rows": probe.remapped_rows(uuid),
            "thermal_ns": probe.violation_ns(uuid, Violation.THERMAL),
            "power_ns": probe.violation_ns(uuid, Violation.POWER),
        }
        found: dict[str, object] = {}
        for name, answer in asked.items():
            if isinstance(answer, Unobservable):
                self._missed(uuid, name, answer)
            elif name == "utilisation":
                found |= {"gpu_percent": answer.gpu, "memory_percent": answer.memory}
            elif name == "ecc":
                found["ecc_uncorrected"] = answer.uncorrected
            elif name == "rows":
                found["rows"] = [
                    *(answer.correctable, answer.uncorrectable),
                    *(answer.pending, answer.failed),
                ]
            elif name == "clock_reasons":
                found[name] = int(answer)
            else:
                found[name] = answer
        return found

    def _users_of(self, uuid: str) -> dict[str, object]:
        """Who has a context there, and how much is taken that none of them holds."""
        found, memory = self._probe.processes(uuid), self._probe.memory(uuid)
        if isinstance(found, Unobservable):
            self._missed(uuid, "processes", found)
            return {}
        before, self._ours[uuid] = self._ours.get(uuid, {}), {}
        listed: list[list[object]] = []
        for one in found:
            known = before.get((one.pid, one.used_bytes))
            user = known or [one.pid, one.used_bytes, self._owner.whose(one.pid), described(one)]
            if user[2] is Whose.OURS:
                self._ours[uuid][one.pid, one.used_bytes] = user
            listed.append(user)
        users: dict[str, object] = {"processes": listed}
        held = [one.used_bytes for one in found]
        if not isinstance(memory, Unobservable) and None not in held:
            users["unlisted"] = memory.taken - sum(filter(None, held))
        return users

    def _missed(self, uuid: str, what: str, why: Unobservable) -> None:
        key = f"{uuid} {what}"
        if self._told.get(key) != why.error:
            self._told[key] = why.error
            self._write(
                kind="missed", gpu=uuid, what=what, unobservable=why.reason, error=why.error
            )

    def _write(self, **line: object) -> None:
        self._file.write(json.dumps({"t": round(self._clock(), 3), **line}) + "\n")


def _cpu_seconds() -> float:
    """CPU seconds of this process until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 3)


def _told(answer: Observed[Any]) -> object:
    if isinstance(answer, Unobservable):
        return {"unobservable": answer.reason, "error": answer.error}
    return list(answer)


def pace(sampling: Sampling, memory_s: float, rest_s: float, lifeline: IO[str]) -> None:
    """Samples at fixed times until the lifeline ends. A time that was slept through is skipped."""
    now = time.monotonic()
    due, rest_due = now, now
    while True:
        sampling.memory()
        if time.monotonic() >= rest_due:
            sampling.events()
            sampling.rest()
            rest_due = max(rest_due + rest_s, time.monotonic())
        due = max(due + memory_s, time.monotonic())
        wait = max(0.0, due - time.monotonic())
        if select.select([lifeline], [], [], wait)[0] and not os.read(lifeline.fileno(), 4096):
            return


def main() -> int:
    order = json.loads(sys.stdin.readline())
    probe = open_nvml()
    if isinstance(probe, NoNvml):
        print(json.dumps({"refused": str(probe)}), flush=True)
        return 1
    with (
        probe,
        Events(probe, order["uuids"]) as events,
        Path(order["path"]).open("a", encoding="utf-8", buffering=1) as file,
    ):
        owner, ahead = Owner(order["pid"], order["mark"]), float(order["ahead"])
        sampling = Sampling(probe, events, order["uuids"], file, owner, lambda: time.time() - ahead)
        sampling.begin()
        print(json.dumps({"ready": True}), flush=True)
        pace(sampling, order["memory_s"], order["rest_s"], sys.stdin)
        sampling.memory(last=True)
        sampling.events()
        sampling.rest()
        sampling.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
