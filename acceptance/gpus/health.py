"""Are the GPUs fit to be judged on: before a server starts, and what happened to them since.

Each check gives findings, one for each GPU it is about. A finding holds, does not, or could not be
made; NVML's refusals are of the last sort and never of the first. How fleets do this, and the
choice of checks: Azure/azurehpc-health-checks, facebookresearch/gcm, `dcgmi diag`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from acceptance.gpus.kv import GIB
from acceptance.gpus.lease import IDLE_TAKEN, IDLE_TAKEN_WITH_RESERVE
from acceptance.gpus.others import others
from acceptance.gpus.probe import Observed, Unobservable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from acceptance.gpus.probe import Gpu, Probe
    from acceptance.gpus.telemetry import Span, Telemetry

BEFORE = (
    "driver",
    "mig",
    "processes",
    "idle",
    "ecc",
    "remap",
    "power_limit",
    "pcie",
    "nvlink",
    "p2p",
)
DURING = ("xid", "ecc_errors", "row_remaps", "throttling", "others")
ALONE = "nobody but this run"
SEVERAL = ("nvlink", "p2p")  # checks that one GPU alone has nothing to say to


@dataclass(frozen=True, slots=True)
class Finding:
    """holds: None where it could not be made, and `seen` then says why. gpu: for people; empty for
    the host. unit: of seen and expected."""

    check: str
    gpu: str
    holds: bool | None
    seen: str
    expected: str

    def __str__(self) -> str:
        return f"{self.gpu or 'host'}: {self.seen}, expected {self.expected}"


def examine(
    probe: Probe, gpus: Sequence[Gpu], driver_floor: str | None = None
) -> dict[str, list[Finding]]:
    """Every check of BEFORE, on leased GPUs with nothing started on them yet. nvlink and p2p are
    empty for a single GPU; driver without a floor is."""
    found: dict[str, list[Finding]] = {check: [] for check in BEFORE}
    if driver_floor is not None:
        found["driver"].append(_driver(probe.driver(), driver_floor))
    for gpu in gpus:
        for check, look in _LOOKS.items():
            if check not in SEVERAL or len(gpus) > 1:
                found[check].append(_made(check, str(gpu), *look(probe, gpu.uuid)))
    for one, other in combinations(gpus, 2):
        pair = f"GPU {one.index} and GPU {other.index}"
        reached = probe.p2p(one.uuid, other.uuid)
        found["p2p"].append(_made("p2p", pair, reached, "peer access", lambda answer: answer))
    return found


def happened(
    telemetry: Telemetry, span: Span, names: Mapping[str, str], ready: float | None
) -> dict[str, list[Finding]]:
    """Every check of DURING over a span. names: UUID -> how people call the GPU. ready: when the
    server was, seconds since the epoch; None when it never was.

    Readings are compared with the first of the span, so an old error is not this run's.
    """
    found: dict[str, list[Finding]] = {check: [] for check in DURING}
    events = telemetry.events_in(span)
    for uuid, name in names.items():
        registered = telemetry.registered.get(uuid, Unobservable("events were not registered for"))
        mine = [event for event in events if event.uuid in (uuid, "")]
        told: Observed[str] = ", ".join(map(str, mine)) or "none"
        found["xid"].append(
            _made(
                "xid",
                name,
                registered if isinstance(registered, Unobservable) and not mine else told,
                "no Xid and no double-bit ECC error",
                lambda answer: answer == "none",
            )
        )
        ecc = _grown(telemetry.readings(uuid, "ecc_uncorrected", span))
        found["ecc_errors"].append(_made("ecc_errors", name, ecc, "0 more", lambda n: n == 0))
        rows = telemetry.readings(uuid, "rows", span)
        remaps = rows if isinstance(rows, Unobservable) else _grown([sum(r[:2]) for r in rows])
        found["row_remaps"].append(_made("row_remaps", name, remaps, "0 more", lambda n: n == 0))
        found["throttling"].append(_throttling(telemetry, uuid, name, span))
        found["others"].append(
            _made(
                "others", name, others(telemetry, uuid, span, ready), ALONE, lambda told: not told
            )
        )
    return found


def _throttling(telemetry: Telemetry, uuid: str, name: str, span: Span) -> Finding:
    """By what the clocks were held at any reading, and by the time that NVML counts, which also
    sees what happens between readings."""
    reasons = telemetry.throttled(uuid, span)
    counted = _grown(telemetry.readings(uuid, "thermal_ns", span))
    told: Observed[list[str]]
    if isinstance(reasons, Unobservable) and isinstance(counted, Unobservable):
        told = reasons
    else:
        told = [] if isinstance(reasons, Unobservable) else list(reasons.names)
        if not isinstance(counted, Unobservable) and counted > 0:
            told.append(f"thermal violation for {counted / 1e9:.3f} s")
    expected = "no slowdown by hardware or heat"
    return _made("throttling", name, told, expected, lambda names: not names)


def returned(
    probe: Probe,
    before: Mapping[str, int],
    *,
    timeout: float = 30.0,
    slack: int = GIB // 4,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Observed[tuple[float, int]]]:
    """Waits for the memory of each GPU to be back at the level before.

    before: UUID -> taken bytes. Returns UUID -> seconds that it took and bytes still taken beyond
    the level then; what is beyond `slack` after `timeout` has not come back.
    """
    began = clock()
    done: dict[str, Observed[tuple[float, int]]] = {}
    while True:
        waited = clock() - began
        for uuid, level in before.items():
            if uuid in done and not isinstance(done[uuid], Unobservable):
                continue
            memory = probe.memory(uuid)
            if isinstance(memory, Unobservable):
                done[uuid] = memory
            elif memory.taken - level <= slack or waited >= timeout:
                done[uuid] = (waited, memory.taken - level)
        settled = [uuid for uuid, answer in done.items() if not isinstance(answer, Unobservable)]
        if len(settled) == len(before) or waited >= timeout:
            return done
        wait(0.2)


def _made(
    check: str,
    gpu: str,
    answer: Observed[object],
    expected: str,
    holds: Callable[..., bool],
) -> Finding:
    if isinstance(answer, Unobservable):
        return Finding(check, gpu, None, str(answer), expected)
    shown = ", ".join(answer) or "none" if isinstance(answer, list) else str(answer)
    return Finding(check, gpu, bool(holds(answer)), shown, expected)


def _grown(readings: Observed[list[int]]) -> Observed[int]:
    return readings if isinstance(readings, Unobservable) else readings[-1] - readings[0]


def _driver(driver: Observed[str], floor: str) -> Finding:
    expected = f"at least {floor}"
    if isinstance(driver, Unobservable):
        return Finding("driver", "", None, str(driver), expected)
    try:
        return Finding("driver", "", Version(driver) >= Version(floor), driver, expected)
    except InvalidVersion:
        return Finding("driver", "", None, f"{driver!r} is no version", expected)


_Look = tuple["Observed[object]", str, "Callable[..., bool]"]


def _mig(probe: Probe, uuid: str) -> _Look:
    return probe.mig(uuid), "MIG off", lambda on: not on


def _processes(probe: Probe, uuid: str) -> _Look:
    found = probe.processes(uuid)
    told: Observed[object] = (
        found if isinstance(found, Unobservable) else [f"pid {process.pid}" for process in found]
    )
    return told, "no process", lambda pids: not pids


def _idle(probe: Probe, uuid: str) -> _Look:
    memory = probe.memory(uuid)
    if isinstance(memory, Unobservable):
        return memory, "idle", lambda _: False
    allowed = IDLE_TAKEN_WITH_RESERVE if memory.reserved is None else IDLE_TAKEN
    mib = memory.taken >> 20
    return f"{mib} MiB taken", f"at most {allowed >> 20} MiB", lambda _: memory.taken <= allowed


def _ecc(probe: Probe, uuid: str) -> _Look:
    ecc = probe.ecc(uuid)
    if isinstance(ecc, Unobservable):
        return ecc, "0 uncorrected errors", lambda _: False
    told = f"{ecc.uncorrected} uncorrected errors" if ecc.enabled else "ECC is off"
    good = ecc.enabled and ecc.uncorrected == 0
    return told, "ECC on and 0 uncorrected errors", lambda _: good


def _remap(probe: Probe, uuid: str) -> _Look:
    rows = probe.remapped_rows(uuid)
    if isinstance(rows, Unobservable):
        return rows, "none pending, none failed", lambda _: False
    told = [name for name in ("pending", "failed") if getattr(rows, name)]
    return list(told), "no row remapping pending or failed", lambda names: not names


def _power_limit(probe: Probe, uuid: str) -> _Look:
    limit = probe.power_limit(uuid)
    if isinstance(limit, Unobservable):
        return limit, "the board's default", lambda _: False
    default = limit.default
    if isinstance(default, Unobservable):
        return default, "the board's default", lambda _: False
    return (
        f"{limit.enforced:.0f} W",
        f"the board's default, {default:.0f} W",
        lambda _: limit.enforced >= default,
    )


def _pcie(probe: Probe, uuid: str) -> _Look:
    pcie = probe.pcie(uuid)
    if isinstance(pcie, Unobservable):
        return pcie, "all lanes", lambda _: False
    return f"x{pcie.width}", f"x{pcie.max_width}", lambda _: pcie.width == pcie.max_width


def _nvlink(probe: Probe, uuid: str) -> _Look:
    links = probe.nvlinks(uuid)
    if isinstance(links, Unobservable):
        return links, "all links up", lambda _: False
    down = ", ".join(map(str, links.down))
    told = f"{len(links.up)} links up" + (f", down: {down}" if down else "")
    return told, "all links up", lambda _: bool(links.up) and not links.down


_LOOKS: dict[str, Callable[[Probe, str], _Look]] = {
    "mig": _mig,
    "processes": _processes,
    "idle": _idle,
    "ecc": _ecc,
    "remap": _remap,
    "power_limit": _power_limit,
    "pcie": _pcie,
    "nvlink": _nvlink,
}
