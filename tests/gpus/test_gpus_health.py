"""Each health check holds on a healthy host, fails naming the GPU, and is neither where NVML does
not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pynvml
import pytest
from gpus_fake_nvml import GIB, MIB, FakeGpu, FakePynvml, b200s, h200s
from gpus_world import World

from acceptance.gpus.health import BEFORE, DURING, examine, happened, returned
from acceptance.gpus.nvml import Nvml, open_nvml
from acceptance.gpus.probe import ClockReasons, Unobservable, seen
from acceptance.gpus.telemetry import Span

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from acceptance.gpus.health import Finding

ALWAYS = Span()
READY = 1001.5  # between the first reading and the second


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a PID means what it means to NVML; see test_gpus_others.py for containers."""
    monkeypatch.setattr("acceptance.gpus.whose.sees_host_pids", lambda: True)


def linked(gpus: list[FakeGpu]) -> list[FakeGpu]:
    for gpu in gpus:
        gpu.links = dict.fromkeys(range(18), 1)
    return gpus


def looked(gpus: list[FakeGpu], floor: str | None = "580") -> dict[str, list[Finding]]:
    probe = open_nvml(FakePynvml(gpus))
    assert isinstance(probe, Nvml)
    return examine(probe, [seen(gpu) for gpu in probe.gpus()], floor)


@pytest.mark.parametrize("gpus", [h200s(8), b200s(4)], ids=["8xH200", "4xB200"])
def test_a_healthy_host_holds_every_check(gpus: list[FakeGpu]) -> None:
    found = looked(linked(gpus))
    assert tuple(found) == BEFORE
    assert all(findings for findings in found.values())
    assert {finding.holds for findings in found.values() for finding in findings} == {True}
    assert len(found["p2p"]) == len(gpus) * (len(gpus) - 1) / 2


def test_one_gpu_has_no_peers() -> None:
    found = looked(h200s(1))
    assert found["nvlink"] == found["p2p"] == []
    assert len(found["ecc"]) == 1


BREAK: dict[str, tuple[Callable[[FakeGpu], object], str]] = {
    "mig": (lambda gpu: setattr(gpu, "mig", 1), "True"),
    "processes": (lambda gpu: gpu.processes.append((4711, GIB)), "pid 4711"),
    "idle": (lambda gpu: setattr(gpu, "taken", 3 * GIB), "3072 MiB taken"),
    "ecc": (lambda gpu: setattr(gpu, "uncorrected", 2), "2 uncorrected errors"),
    "remap": (lambda gpu: setattr(gpu, "rows", (0, 1, 1, 0)), "pending"),
    "power_limit": (lambda gpu: setattr(gpu, "default_limit", 900_000), "700 W"),
    "pcie": (lambda gpu: setattr(gpu, "width", 8), "x8"),
    "nvlink": (lambda gpu: gpu.links.update({5: 0}), "17 links up, down: 5"),
    "p2p": (lambda gpu: setattr(gpu, "no_peers", True), "False"),
}


@pytest.mark.parametrize("check", BREAK)
def test_a_gpu_that_is_not_fit_is_named(check: str) -> None:
    gpus = linked(h200s(4))
    spoil, told = BREAK[check]
    spoil(gpus[2])
    found = looked(gpus)
    broken = [finding for finding in found[check] if finding.holds is False]
    assert broken
    assert all("GPU 2" in finding.gpu and told in finding.seen for finding in broken)
    others = [finding for name, each in found.items() if name != check for finding in each]
    assert {finding.holds for finding in others} == {True}


def test_a_remapping_that_failed_and_ecc_that_is_off_are_faults() -> None:
    failed, off = h200s(2)
    failed.rows, off.ecc_enabled = (0, 1, 0, 1), 0
    found = looked([failed, off])
    assert [finding.holds for finding in found["remap"]] == [False, True]
    assert [finding.seen for finding in found["ecc"]] == ["0 uncorrected errors", "ECC is off"]
    assert [finding.holds for finding in found["ecc"]] == [True, False]


@pytest.mark.parametrize(("floor", "holds"), [("580", True), ("580.160", False), ("590", False)])
def test_the_driver_has_a_floor(floor: str, holds: bool) -> None:
    (finding,) = looked(h200s(1), floor)["driver"]
    assert (finding.seen, finding.holds) == ("580.159.04", holds)
    assert looked(h200s(1), None)["driver"] == []


REFUSE = {
    "mig": "nvmlDeviceGetMigMode",
    "processes": "nvmlDeviceGetComputeRunningProcesses",
    "idle": "nvmlDeviceGetMemoryInfo",
    "ecc": "nvmlDeviceGetTotalEccErrors",
    "remap": "nvmlDeviceGetRemappedRows",
    "power_limit": "nvmlDeviceGetEnforcedPowerLimit",
    "pcie": "nvmlDeviceGetCurrPcieLinkWidth",
    "nvlink": "nvmlDeviceGetNvLinkState",
    "p2p": "nvmlDeviceGetP2PStatus",
}


@pytest.mark.parametrize("check", REFUSE)
def test_what_nvml_does_not_answer_is_neither_health_nor_fault(check: str) -> None:
    gpus = linked(h200s(2))
    gpus[1].errors[REFUSE[check]] = pynvml.NVML_ERROR_NOT_SUPPORTED
    gpus[0].errors |= gpus[1].errors if check == "p2p" else {}
    unseen = [finding for finding in looked(gpus)[check] if finding.holds is None]
    assert unseen
    assert all("NVML_ERROR_NOT_SUPPORTED" in finding.seen for finding in unseen)


def test_nothing_happened_on_a_quiet_run(tmp_path: Path) -> None:
    world = World(h200s(4), tmp_path / "t.jsonl")
    for gpu in world.gpus:  # old errors are not this run's, and the power cap is no fault
        gpu.uncorrected, gpu.rows, gpu.clock_reasons = 3, (1, 1, 0, 0), ClockReasons.SW_POWER_CAP
    world.tick()
    world.tick()
    found = happened(world.read(), ALWAYS, world.names, READY)
    assert tuple(found) == DURING
    assert {finding.holds for each in found.values() for finding in each} == {True}


THEN: dict[str, tuple[Callable[[World, FakeGpu], object], str]] = {
    "xid": (lambda world, gpu: world.module.happen(gpu, 79), "Xid 79 (hardware)"),
    "ecc_errors": (lambda _, gpu: setattr(gpu, "uncorrected", 1), "1"),
    "row_remaps": (lambda _, gpu: setattr(gpu, "rows", (1, 1, 0, 0)), "2"),
    "throttling": (lambda _, gpu: setattr(gpu, "clock_reasons", 0x48), "hw_slowdown, hw_thermal"),
    "others": (lambda _, gpu: gpu.processes.append((1, 10 * GIB)), "pid 1 ("),
}


@pytest.mark.parametrize("check", DURING)
def test_what_happens_to_a_gpu_is_found_and_names_it(check: str, tmp_path: Path) -> None:
    world = World(h200s(4), tmp_path / "t.jsonl")
    world.tick()
    strike, told = THEN[check]
    strike(world, world.gpus[3])
    world.tick()
    found = happened(world.read(), ALWAYS, world.names, READY)
    broken = [finding for each in found.values() for finding in each if not finding.holds]
    assert [(finding.check, finding.gpu) for finding in broken] == [(check, "GPU 3")]
    assert told in broken[0].seen


def test_heat_between_two_readings_is_found_by_its_time(tmp_path: Path) -> None:
    world = World(h200s(1), tmp_path / "t.jsonl")
    gpu = world.gpus[0]
    gpu.violations = {pynvml.NVML_PERF_POLICY_THERMAL: 5_000_000_000}
    world.tick()
    gpu.violations = {pynvml.NVML_PERF_POLICY_THERMAL: 5_250_000_000}
    world.tick()
    (finding,) = happened(world.read(), ALWAYS, world.names, READY)["throttling"]
    assert finding.holds is False
    assert finding.seen == "thermal violation for 0.250 s"


def test_events_that_were_not_registered_for_are_not_known_to_be_none(tmp_path: Path) -> None:
    gpus = h200s(1)
    gpus[0].errors["nvmlDeviceRegisterEvents"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    world = World(gpus, tmp_path / "t.jsonl")
    world.tick()
    (finding,) = happened(world.read(), ALWAYS, world.names, READY)["xid"]
    assert finding.holds is None
    assert "NVML_ERROR_NOT_SUPPORTED" in finding.seen


class Turning:
    """Time that passes while waiting; `then` is called at each wait."""

    def __init__(self, then: Callable[[float], None] = lambda _: None) -> None:
        self.now, self.then = 0.0, then

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.then(self.now)

    def clock(self) -> float:
        return self.now


def test_memory_that_comes_back_late_is_waited_for() -> None:
    gpus = h200s(2)
    gpus[1].taken = 120 * GIB
    probe = open_nvml(FakePynvml(gpus))
    assert isinstance(probe, Nvml)

    def free(now: float) -> None:
        gpus[1].taken = 0 if now > 8 else gpus[1].taken

    turning = Turning(free)
    answers = returned(probe, {gpu.uuid: 0 for gpu in gpus}, wait=turning.wait, clock=turning.clock)
    assert answers[gpus[0].uuid] == (0.0, 0)
    waited, kept = seen(answers[gpus[1].uuid])
    assert kept == 0
    assert 8 < waited < 9


def test_memory_that_stays_is_told_after_its_time() -> None:
    gpu = h200s(1)[0]
    gpu.taken = 5 * GIB + 300 * MIB
    probe = open_nvml(FakePynvml([gpu]))
    assert isinstance(probe, Nvml)
    turning = Turning()
    answers = returned(probe, {gpu.uuid: 0}, wait=turning.wait, clock=turning.clock)
    waited, kept = seen(answers[gpu.uuid])
    assert waited >= 30
    assert kept == gpu.taken


def test_a_gpu_that_was_lost_does_not_count_as_free() -> None:
    gpu = h200s(1)[0]
    probe = open_nvml(FakePynvml([gpu]))
    assert isinstance(probe, Nvml)
    gpu.lost = True
    turning = Turning()
    answers = returned(probe, {gpu.uuid: 0}, wait=turning.wait, clock=turning.clock)
    assert isinstance(answers[gpu.uuid], Unobservable)
