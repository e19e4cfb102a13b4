"""The health checks: two H200 that are as they should be, and one fault each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version
from proofs import broken, healthy
from suites_gpus import STRANGER, A, B, Gpus, gpu_world
from suites_world import World, deployment

import suites.memory.test_health as health
from acceptance.gpus.events import GpuEvent
from acceptance.gpus.health import BEFORE, DURING, Finding
from acceptance.gpus.kv import GIB
from acceptance.gpus.probe import ClockReasons, Unobservable
from acceptance.judging.judgement import Outcome
from fixtures.judging import OptionalSkip
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def gpus() -> Gpus:
    return Gpus()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return gpu_world(tmp_path)


class TestFit:
    """test_gpus_are_fit."""

    def check(self, world: World, gpus: Any, check: str) -> None:
        health.test_gpus_are_fit(check, world.deployment, gpus, world.record_check)

    @healthy(health.test_gpus_are_fit)
    @pytest.mark.parametrize("check", BEFORE)
    def test_they_are(self, world: World, gpus: Any, check: str) -> None:
        self.check(world, gpus, check)
        assert world.seen["actual"] == "GPU 0: as it should be; GPU 1: as it should be"

    @broken(health.test_gpus_are_fit)
    @pytest.mark.parametrize("check", BEFORE)
    def test_one_is_not(self, world: World, gpus: Any, check: str) -> None:
        gpus.before[check][1] = Finding(check, "GPU 1", False, "capped to 350 W", "700 W")
        with pytest.raises(
            AssertionError, match="hardware: GPU 1: capped to 350 W, expected 700 W"
        ):
            self.check(world, gpus, check)

    @broken(health.test_gpus_are_fit)
    def test_it_cannot_be_seen(self, world: World, gpus: Any) -> None:
        gpus.before["nvlink"][0] = Finding("nvlink", "GPU 0", None, "not supported", "links up")
        with pytest.raises(OptionalSkip, match="nvlink is not observable here"):
            self.check(world, gpus, "nvlink")
        world.deployment = deployment("fp8-8xh200-tp-ep", health={"observe": ("nvlink",)})
        with pytest.raises(pytest.skip.Exception, match="gpus is not observable") as skip:
            self.check(world, gpus, "nvlink")
        assert not isinstance(skip.value, OptionalSkip)

    def test_one_gpu_has_no_peers(self, world: World, gpus: Any) -> None:
        gpus.before["p2p"] = []
        with pytest.raises(OptionalSkip, match="no peers"):
            self.check(world, gpus, "p2p")


class TestDuring:
    """test_nothing_happened_to_the_gpus and test_power_cap_is_shown."""

    def check(self, world: World, gpus: Any, check: str) -> None:
        health.test_nothing_happened_to_the_gpus(
            check,
            world.deployment,
            gpus,
            world.record_check,
        )

    @healthy(health.test_nothing_happened_to_the_gpus)
    @pytest.mark.parametrize("check", DURING)
    def test_nothing_did(self, world: World, gpus: Any, check: str) -> None:
        """Old ECC errors are not this run's, and the software power cap is no fault."""
        self.check(world, gpus, check)

    @broken(health.test_nothing_happened_to_the_gpus)
    @pytest.mark.parametrize(
        ("check", "fault"),
        [
            ("xid", {"events": [(4.0, GpuEvent(B, "xid", 94))]}),
            ("ecc_errors", {"uncorrected": [7, 8]}),
            ("throttling", {"reasons": [0, int(ClockReasons.HW_THERMAL), 0]}),
            ("others", {"strangers": {B: [STRANGER]}}),
        ],
    )
    def test_something_did(
        self, world: World, gpus: Any, check: str, fault: dict[str, Any]
    ) -> None:
        for name, value in fault.items():
            setattr(gpus, name, value)
        with pytest.raises(AssertionError, match="GPU 1"):
            self.check(world, gpus, check)

    def test_somebody_else_is_the_host_s_doing(self, world: World, gpus: Any) -> None:
        gpus.strangers = {A: [STRANGER]}
        told = (
            r"^host: GPU 0: pid 1 \(python of somebody, 10\.0 GiB\), expected nobody but this run"
        )
        with pytest.raises(AssertionError, match=told):
            self.check(world, gpus, "others")

    def test_events_that_could_not_be_registered(self, world: World, gpus: Any) -> None:
        gpus.registered = Unobservable("events", "NVML_ERROR_NOT_SUPPORTED")
        with pytest.raises(OptionalSkip, match="xid is not observable here"):
            self.check(world, gpus, "xid")

    @healthy(health.test_power_cap_is_shown)
    def test_the_power_cap_is_shown(self, world: World, gpus: Any) -> None:
        health.test_power_cap_is_shown(gpus, world.judge)
        shown = world.judged["power_capped_share"]
        assert (shown.outcome, shown.required) == (Outcome.UNGATED, False)
        assert shown.measurement.value == 1

    @broken(health.test_power_cap_is_shown)
    def test_a_power_cap_that_nobody_could_read_is_no_zero(self, world: World, gpus: Any) -> None:
        gpus.reasons = []
        health.test_power_cap_is_shown(gpus, world.judge)
        shown = world.judged["power_capped_share"]
        assert (shown.outcome, shown.measurement.value) == (Outcome.INVALID, None)


class TestBack:
    """test_memory_comes_back."""

    def check(self, world: World, gpus: Any, answers: dict[str, Any], monkeypatch: Any) -> Any:
        ended: list[Any] = []

        def returned(timeout: float) -> dict[str, Any]:
            assert ended or server.ended
            return answers

        server = world.server(version=Version("0.32.0"))
        monkeypatch.setattr(health, "end_idle", ended.append)
        monkeypatch.setattr(gpus, "returned", returned, raising=False)
        health.test_memory_comes_back(server, world.deployment, gpus, world.judge)
        return ended

    @healthy(health.test_memory_comes_back)
    def test_it_does(self, world: World, gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        ended = self.check(world, gpus, {A: (2.0, 0), B: (3.0, GIB // 8)}, monkeypatch)
        assert len(ended) == 1, "a server that nothing ended is ended first"
        assert world.outcomes == {"memory_kept_gib": Outcome.PASS}

    @broken(health.test_memory_comes_back)
    def test_somebody_else_took_it(
        self, world: World, gpus: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace(time=lambda: 4.0)
        monkeypatch.setattr(health, "time", clock)
        gpus.strangers = {B: [STRANGER]}
        with pytest.raises(JudgementFailed, match="gpu-shared"):
            self.check(world, gpus, {A: (2.0, 0), B: (30.0, 10 * GIB)}, monkeypatch)
        assert world.outcomes == {"memory_kept_gib": Outcome.INVALID}

    @broken(health.test_memory_comes_back)
    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [((30.0, 128 * GIB), Outcome.FAIL), (Unobservable("GPU is lost"), Outcome.INVALID)],
    )
    def test_it_does_not(
        self,
        world: World,
        gpus: Any,
        monkeypatch: pytest.MonkeyPatch,
        answer: Any,
        outcome: Outcome,
    ) -> None:
        with pytest.raises(JudgementFailed, match="memory_kept_gib"):
            self.check(world, gpus, {A: (2.0, 0), B: answer}, monkeypatch)
        assert world.outcomes == {"memory_kept_gib": outcome}
