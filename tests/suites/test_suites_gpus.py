"""The memory checks of GPUs: two H200 that are as they should be, and one fault each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from packaging.version import Version
from proofs import broken, healthy
from suites_world import World, deployment

import suites.memory.test_headroom as headroom
import suites.memory.test_health as health
from acceptance.gpus.events import GpuEvent
from acceptance.gpus.health import BEFORE, DURING, Finding
from acceptance.gpus.kv import GIB
from acceptance.gpus.probe import ClockReasons, Unobservable
from acceptance.gpus.telemetry import Span, Telemetry
from acceptance.judging.judgement import Outcome
from acceptance.serving.facts import Facts
from acceptance.serving.metrics import Metrics, parse
from acceptance.serving.server import Server, Startup
from fixtures.judging import OptionalSkip
from reports.checks import JudgementFailed

if TYPE_CHECKING:
    from pathlib import Path

A, B = "GPU-a", "GPU-b"
TOTAL = 141 * GIB


@dataclass
class Gpus:
    """A GpuWatch of two GPUs, by what NVML told. free: GiB of each, second after second from 1 on;
    ready at 3, the first cell measured at 5 and the second at 6."""

    free: list[tuple[float | None, float | None]] = field(
        default_factory=lambda: [(140, 140), (12, 12), (12, 12), (11, 11), (11, 11), (11, 11)]
    )
    events: list[tuple[float, GpuEvent]] = field(default_factory=list)
    reasons: list[int] = field(default_factory=lambda: [0, 0, 4, 4])
    uncorrected: list[int] = field(default_factory=lambda: [7, 7])
    registered: Any = ("xid", "ecc")
    before: dict[str, list[Finding]] = field(
        default_factory=lambda: {
            check: [
                Finding(check, gpu, True, "as it should be", "so") for gpu in ("GPU 0", "GPU 1")
            ]
            for check in BEFORE
        }
    )
    gpus: tuple[str, ...] = (A, B)
    cells: dict[str, float] = field(
        default_factory=lambda: {"prompt-heavy-b1": 5, "balanced-b1": 6}
    )
    began: float = 0
    starting: Span = field(default_factory=lambda: Span(0, 3))
    serving: Span = field(default_factory=lambda: Span(3, 9))
    names: dict[str, str] = field(default_factory=lambda: {A: "GPU 0", B: "GPU 1"})
    taken: dict[str, int] = field(default_factory=lambda: {A: GIB, B: GIB})
    probe: Any = None

    def telemetry(self) -> Telemetry:
        told = [
            {
                "t": moment,
                "gpu": gpu,
                "clock_reasons": reasons,
                "ecc_uncorrected": self.uncorrected[min(moment, len(self.uncorrected)) - 1],
                "rows": [0, 0, False, False],
                "thermal_ns": 0,
            }
            for moment, reasons in enumerate(self.reasons, 1)
            for gpu in self.names
        ]
        rows = [tuple(None if gib is None else int(gib * GIB) for gib in row) for row in self.free]
        return Telemetry(
            gpus=(A, B),
            total={A: TOTAL, B: TOTAL},
            registered=dict.fromkeys((A, B), self.registered),
            memory=[(float(moment), row) for moment, row in enumerate(rows, 1)],
            rest=told,
            events=self.events,
        )


@pytest.fixture
def gpus() -> Gpus:
    return Gpus()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A deployment of several GPUs that needs 1 GiB of each left free."""
    return World(deployment("fp8-8xh200-tp-ep", memory={"headroom_floor_gib": 1.0}), tmp_path)


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    def scrape(_: Server) -> Metrics:
        return parse('vllm:cache_config_info{engine="0",gpu_memory_utilization="0.92"} 1.0\n')

    monkeypatch.setattr(headroom, "scrape", scrape)
    monkeypatch.setattr(headroom, "SETTLED", 0)


ROOM = {"headroom_gib": Outcome.PASS, "headroom_share": Outcome.PASS}
# 11.28 GiB are planned to stay free of 141 at 0.92.
SHOWN = {"headroom_overrun_gib": Outcome.UNGATED}


def over(check: Any, world: World, gpus: Gpus) -> None:
    """test_headroom_over_startup or test_headroom_over_load."""
    check(world.server(), world.deployment, gpus, world.judge)


OVER = (headroom.test_headroom_over_startup, headroom.test_headroom_over_load)


@healthy(headroom.test_headroom_over_startup, headroom.test_headroom_over_load)
@pytest.mark.parametrize("check", OVER)
def test_enough_is_left_free(world: World, gpus: Gpus, check: Any) -> None:
    over(check, world, gpus)
    assert world.outcomes == ROOM | SHOWN
    gating = [r.judgement for r in world.records if r.judgement.required]
    assert len(gating) == 4, "two measurements of each GPU"


@broken(headroom.test_headroom_over_startup, headroom.test_headroom_over_load)
@pytest.mark.parametrize("check", OVER)
@pytest.mark.parametrize(
    ("left", "outcome"), [(0.75, Outcome.FAIL), (None, Outcome.INVALID)], ids=["less", "unseen"]
)
def test_too_little_is_left_free_on_one_of_two(
    world: World, gpus: Gpus, check: Any, left: float | None, outcome: Outcome
) -> None:
    """784 MiB were free in vllm-backport#94, at one moment."""
    rows = range(len(gpus.free)) if left is None else (1, 4)
    for row in rows:
        gpus.free[row] = (gpus.free[row][0], left)
    with pytest.raises(JudgementFailed, match="headroom_gib"):
        over(check, world, gpus)
    assert outcome in {record.judgement.outcome for record in world.records}


class TestLongest:
    """test_headroom_over_longest_prompts."""

    def check(self, world: World, gpus: Gpus, answer: Any) -> None:
        transport = httpx.MockTransport(answer)
        with httpx.Client(transport=transport, base_url="http://server.test") as http:
            headroom.test_headroom_over_longest_prompts(
                world.server(),
                world.deployment,
                gpus,
                http,
                world.judge,  # type: ignore[arg-type]
            )

    @staticmethod
    def served(request: httpx.Request) -> httpx.Response:
        prompt = json.loads(request.content)["prompt"]
        return httpx.Response(200, json={"usage": {"prompt_tokens": len(prompt)}})

    @pytest.fixture(autouse=True)
    def small(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        options = {"max_model_len": 1001, "max_num_batched_tokens": 2000}
        memory = {"headroom_floor_gib": 1.0}
        world.deployment = deployment("fp8-8xh200-tp-ep", options=options, memory=memory)
        clock = iter((3.0, 9.0))
        monkeypatch.setattr(
            headroom, "time", SimpleNamespace(time=lambda: next(clock), sleep=lambda _: None)
        )

    @healthy(headroom.test_headroom_over_longest_prompts)
    def test_all_are_served_with_memory_left(self, world: World, gpus: Gpus) -> None:
        self.check(world, gpus, self.served)
        assert world.outcomes == ROOM | SHOWN | {"longest_requests_served": Outcome.PASS}
        assert world.judged["longest_requests_served"].measurement.value == 3

    @broken(headroom.test_headroom_over_longest_prompts)
    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(500, json={"error": {"message": "CUDA out of memory"}}),
            httpx.Response(400, json={"error": {"message": "too long"}}),
            httpx.Response(200, json={"usage": {"prompt_tokens": 999}}),
            httpx.Response(200, text="<html>"),
        ],
        ids=["500", "400", "cut", "no JSON"],
    )
    def test_not_all_are_served(self, world: World, gpus: Gpus, answer: httpx.Response) -> None:
        with pytest.raises(JudgementFailed, match="longest_requests_served: 0 requests"):
            self.check(world, gpus, lambda _: answer)

    @broken(headroom.test_headroom_over_longest_prompts)
    def test_they_take_what_was_to_be_left(self, world: World, gpus: Gpus) -> None:
        gpus.free[4] = (0.5, 11)
        with pytest.raises(JudgementFailed, match="headroom_gib"):
            self.check(world, gpus, self.served)

    def test_a_length_that_nobody_knows(self, world: World, gpus: Gpus) -> None:
        world.deployment = deployment("fp8-8xh200-tp-ep", options={"max_model_len": None})
        with pytest.raises(pytest.skip.Exception, match="log is not observable"):
            self.check(world, gpus, self.served)


@healthy(headroom.test_memory_does_not_grow)
def test_what_is_kept_once_is_no_leak(world: World, gpus: Gpus) -> None:
    headroom.test_memory_does_not_grow(world.deployment, gpus, world.judge)  # type: ignore[arg-type]
    assert world.outcomes == {"growth_gib": Outcome.PASS, "late_growth_gib": Outcome.PASS}
    assert world.judged["growth_gib"].measurement.value == 1


@broken(headroom.test_memory_does_not_grow)
@pytest.mark.parametrize(
    ("free", "metric"),
    [
        ([12, 12, 12, 9, 7, 7], "growth_gib"),
        ([12, 12, 12, 12, 12, 10], "late_growth_gib"),
        ([None] * 6, "growth_gib"),
    ],
    ids=["at first", "and on", "unseen"],
)
def test_memory_that_grows(world: World, gpus: Gpus, free: list[Any], metric: str) -> None:
    gpus.free = [(11, gib) for gib in free]
    with pytest.raises(JudgementFailed, match=metric):
        headroom.test_memory_does_not_grow(world.deployment, gpus, world.judge)  # type: ignore[arg-type]


def equal(world: World, gpus: Gpus) -> None:
    headroom.test_ranks_have_equal_headroom(
        world.server(),
        world.deployment,
        gpus,
        world.judge,  # type: ignore[arg-type]
    )


@healthy(headroom.test_ranks_have_equal_headroom)
def test_ranks_that_are_alike(world: World, gpus: Gpus) -> None:
    gpus.free = [(12, 12.5)]
    equal(world, gpus)
    assert world.outcomes == {"headroom_imbalance_gib": Outcome.PASS}
    gpus.gpus = (A,)
    with pytest.raises(OptionalSkip):
        equal(world, gpus)


@broken(headroom.test_ranks_have_equal_headroom)
@pytest.mark.parametrize(
    ("free", "outcome"), [((9, 12), Outcome.FAIL), ((9, None), Outcome.INVALID)]
)
def test_a_rank_that_holds_something_else(
    world: World, gpus: Gpus, free: tuple[Any, Any], outcome: Outcome
) -> None:
    gpus.free = [free]
    with pytest.raises(JudgementFailed):
        equal(world, gpus)
    assert world.outcomes == {"headroom_imbalance_gib": outcome}


def graphs(world: World, gpus: Gpus, actual: dict[str, float], estimated: dict[str, float]) -> None:
    facts = Facts(graph_pool_actual=actual, graph_pool_estimated=estimated)
    headroom.test_graph_memory_is_as_estimated(
        world.server(startup=Startup(facts=facts)),
        world.deployment,
        gpus,  # type: ignore[arg-type]
        world.judge,
    )


@healthy(headroom.test_graph_memory_is_as_estimated)
def test_graphs_within_their_estimate(world: World, gpus: Gpus) -> None:
    graphs(
        world, gpus, {"Worker_TP0": 1.2, "Worker_TP1": 1.1}, {"Worker_TP0": 1.0, "Worker_TP1": 1}
    )
    assert world.outcomes == {"graph_overshoot_gib": Outcome.PASS}


@broken(headroom.test_graph_memory_is_as_estimated)
def test_graphs_beyond_their_estimate(world: World, gpus: Gpus) -> None:
    with pytest.raises(JudgementFailed, match="graph_overshoot_gib: 1 GiB"):
        graphs(
            world, gpus, {"Worker_TP0": 1.0, "Worker_TP1": 2}, {"Worker_TP0": 1, "Worker_TP1": 1}
        )


def test_graphs_that_nobody_tells_of(world: World, gpus: Gpus) -> None:
    with pytest.raises(pytest.skip.Exception, match="log is not observable") as skip:
        graphs(world, gpus, {"Worker_TP0": 1.0}, {})
    assert not isinstance(skip.value, OptionalSkip)
    world.deployment = deployment("fp8-8xh200-tp-ep", options={"enforce_eager": True})
    with pytest.raises(OptionalSkip):
        graphs(world, gpus, {"Worker_TP0": 9.0}, {"Worker_TP0": 1.0})


class TestFit:
    """test_gpus_are_fit."""

    def check(self, world: World, gpus: Gpus, check: str) -> None:
        health.test_gpus_are_fit(check, world.deployment, gpus, world.record_check)  # type: ignore[arg-type]

    @healthy(health.test_gpus_are_fit)
    @pytest.mark.parametrize("check", BEFORE)
    def test_they_are(self, world: World, gpus: Gpus, check: str) -> None:
        self.check(world, gpus, check)
        assert world.seen["actual"] == "GPU 0: as it should be; GPU 1: as it should be"

    @broken(health.test_gpus_are_fit)
    @pytest.mark.parametrize("check", BEFORE)
    def test_one_is_not(self, world: World, gpus: Gpus, check: str) -> None:
        gpus.before[check][1] = Finding(check, "GPU 1", False, "capped to 350 W", "700 W")
        with pytest.raises(
            AssertionError, match="hardware: GPU 1: capped to 350 W, expected 700 W"
        ):
            self.check(world, gpus, check)

    @broken(health.test_gpus_are_fit)
    def test_it_cannot_be_seen(self, world: World, gpus: Gpus) -> None:
        gpus.before["nvlink"][0] = Finding("nvlink", "GPU 0", None, "not supported", "links up")
        with pytest.raises(OptionalSkip, match="nvlink is not observable here"):
            self.check(world, gpus, "nvlink")
        world.deployment = deployment("fp8-8xh200-tp-ep", health={"observe": ("nvlink",)})
        with pytest.raises(pytest.skip.Exception, match="gpus is not observable") as skip:
            self.check(world, gpus, "nvlink")
        assert not isinstance(skip.value, OptionalSkip)

    def test_one_gpu_has_no_peers(self, world: World, gpus: Gpus) -> None:
        gpus.before["p2p"] = []
        with pytest.raises(OptionalSkip, match="no peers"):
            self.check(world, gpus, "p2p")


class TestDuring:
    """test_nothing_happened_to_the_gpus and test_power_cap_is_shown."""

    def check(self, world: World, gpus: Gpus, check: str) -> None:
        health.test_nothing_happened_to_the_gpus(
            check,
            world.deployment,
            gpus,
            world.record_check,  # type: ignore[arg-type]
        )

    @healthy(health.test_nothing_happened_to_the_gpus)
    @pytest.mark.parametrize("check", DURING)
    def test_nothing_did(self, world: World, gpus: Gpus, check: str) -> None:
        """Old ECC errors are not this run's, and the software power cap is no fault."""
        self.check(world, gpus, check)

    @broken(health.test_nothing_happened_to_the_gpus)
    @pytest.mark.parametrize(
        ("check", "fault"),
        [
            ("xid", {"events": [(4.0, GpuEvent(B, "xid", 94))]}),
            ("ecc_errors", {"uncorrected": [7, 8]}),
            ("throttling", {"reasons": [0, int(ClockReasons.HW_THERMAL), 0]}),
        ],
    )
    def test_something_did(
        self, world: World, gpus: Gpus, check: str, fault: dict[str, Any]
    ) -> None:
        for name, value in fault.items():
            setattr(gpus, name, value)
        with pytest.raises(AssertionError, match="GPU 1"):
            self.check(world, gpus, check)

    def test_events_that_could_not_be_registered(self, world: World, gpus: Gpus) -> None:
        gpus.registered = Unobservable("events", "NVML_ERROR_NOT_SUPPORTED")
        with pytest.raises(OptionalSkip, match="xid is not observable here"):
            self.check(world, gpus, "xid")

    @healthy(health.test_power_cap_is_shown)
    def test_the_power_cap_is_shown(self, world: World, gpus: Gpus) -> None:
        health.test_power_cap_is_shown(gpus, world.judge)  # type: ignore[arg-type]
        shown = world.judged["power_capped_share"]
        assert (shown.outcome, shown.required) == (Outcome.UNGATED, False)
        assert shown.measurement.value == 1

    @broken(health.test_power_cap_is_shown)
    def test_a_power_cap_that_nobody_could_read_is_no_zero(self, world: World, gpus: Gpus) -> None:
        gpus.reasons = []
        health.test_power_cap_is_shown(gpus, world.judge)  # type: ignore[arg-type]
        shown = world.judged["power_capped_share"]
        assert (shown.outcome, shown.measurement.value) == (Outcome.INVALID, None)


class TestBack:
    """test_memory_comes_back."""

    def check(self, world: World, gpus: Gpus, answers: dict[str, Any], monkeypatch: Any) -> Any:
        ended = []

        def returned(probe: Any, taken: dict[str, int], timeout: float) -> dict[str, Any]:
            assert taken == gpus.taken
            assert ended or server.ended
            return answers

        server = world.server(version=Version("0.32.0"))
        monkeypatch.setattr(health, "end_idle", ended.append)
        monkeypatch.setattr(health, "returned", returned)
        health.test_memory_comes_back(server, world.deployment, gpus, world.judge)  # type: ignore[arg-type]
        return ended

    @healthy(health.test_memory_comes_back)
    def test_it_does(self, world: World, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
        ended = self.check(world, gpus, {A: (2.0, 0), B: (3.0, GIB // 8)}, monkeypatch)
        assert len(ended) == 1, "a server that nothing ended is ended first"
        assert world.outcomes == {"memory_kept_gib": Outcome.PASS}

    @broken(health.test_memory_comes_back)
    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [((30.0, 128 * GIB), Outcome.FAIL), (Unobservable("GPU is lost"), Outcome.INVALID)],
    )
    def test_it_does_not(
        self,
        world: World,
        gpus: Gpus,
        monkeypatch: pytest.MonkeyPatch,
        answer: Any,
        outcome: Outcome,
    ) -> None:
        with pytest.raises(JudgementFailed, match="memory_kept_gib"):
            self.check(world, gpus, {A: (2.0, 0), B: answer}, monkeypatch)
        assert world.outcomes == {"memory_kept_gib": outcome}
