"""The headroom checks: two H200 with enough left free, and one fault each."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from proofs import broken, healthy
from suites_gpus import STRANGER, A, B, Gpus, gpu_world
from suites_world import World, deployment

import suites.memory.test_headroom as headroom
from acceptance.judging.judgement import Outcome
from acceptance.serving.facts import Facts
from acceptance.serving.metrics import Metrics, parse
from acceptance.serving.server import Server, Startup
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


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    def scrape(_: Server) -> Metrics:
        return parse('vllm:cache_config_info{engine="0",gpu_memory_utilization="0.92"} 1.0\n')

    monkeypatch.setattr(headroom, "scrape", scrape)
    monkeypatch.setattr(headroom, "SETTLED", 0)


ROOM = {"headroom_gib": Outcome.PASS, "headroom_share": Outcome.PASS}
# 11.28 GiB are planned to stay free of 141 at 0.92.
SHOWN = {"headroom_overrun_gib": Outcome.UNGATED}


def over(check: Any, world: World, gpus: Any) -> None:
    """test_headroom_over_startup or test_headroom_over_load."""
    check(world.server(), world.deployment, gpus, world.judge)


OVER = (headroom.test_headroom_over_startup, headroom.test_headroom_over_load)


@healthy(headroom.test_headroom_over_startup, headroom.test_headroom_over_load)
@pytest.mark.parametrize("check", OVER)
def test_enough_is_left_free(world: World, gpus: Any, check: Any) -> None:
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
    world: World, gpus: Any, check: Any, left: float | None, outcome: Outcome
) -> None:
    """784 MiB were free in vllm-backport#94, at one moment."""
    rows = range(len(gpus.free)) if left is None else (1, 4)
    for row in rows:
        gpus.free[row] = (gpus.free[row][0], left)
    with pytest.raises(JudgementFailed, match="headroom_gib"):
        over(check, world, gpus)
    assert outcome in {record.judgement.outcome for record in world.records}


SHARED = "host: GPU 1: pid 1 (python of somebody, 10.0 GiB)"


@broken(
    headroom.test_headroom_over_load,
    headroom.test_memory_does_not_grow,
    headroom.test_ranks_have_equal_headroom,
)
@pytest.mark.parametrize(
    "check",
    [
        headroom.test_headroom_over_load,
        headroom.test_memory_does_not_grow,
        headroom.test_ranks_have_equal_headroom,
    ],
)
def test_what_was_read_while_somebody_else_was_there_is_invalid(
    world: World, gpus: Any, check: Any
) -> None:
    """It is the host's doing, whether memory was short or not."""
    gpus.strangers = {B: [STRANGER]}
    given = {"server": world.server(), "deployment": world.deployment, "judge": world.judge}
    given |= {"loaded": gpus, "after_load": gpus}
    names = inspect.signature(check).parameters
    with pytest.raises(JudgementFailed, match="gpu-shared"):
        check(**{name: given[name] for name in names})
    gating = [r.judgement for r in world.records if r.judgement.required]
    assert {judged.outcome for judged in gating} == {Outcome.INVALID}
    evidence = {rule.evidence for judged in gating for rule in judged.measurement.broken}
    assert evidence == {SHARED}


class TestLongest:
    """test_headroom_over_longest_prompts."""

    def check(self, world: World, gpus: Any, answer: Any) -> None:
        transport = httpx.MockTransport(answer)
        with httpx.Client(transport=transport, base_url="http://server.test") as http:
            headroom.test_headroom_over_longest_prompts(
                world.server(),
                world.deployment,
                gpus,
                http,
                world.judge,
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
    def test_all_are_served_with_memory_left(self, world: World, gpus: Any) -> None:
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
    def test_not_all_are_served(self, world: World, gpus: Any, answer: httpx.Response) -> None:
        with pytest.raises(JudgementFailed, match="longest_requests_served: 0 requests"):
            self.check(world, gpus, lambda _: answer)

    @broken(headroom.test_headroom_over_longest_prompts)
    def test_they_take_what_was_to_be_left(self, world: World, gpus: Any) -> None:
        gpus.free[4] = (0.5, 11)
        with pytest.raises(JudgementFailed, match="headroom_gib"):
            self.check(world, gpus, self.served)

    def test_a_length_that_nobody_knows(self, world: World, gpus: Any) -> None:
        world.deployment = deployment("fp8-8xh200-tp-ep", options={"max_model_len": None})
        with pytest.raises(pytest.skip.Exception, match="log is not observable"):
            self.check(world, gpus, self.served)


@healthy(headroom.test_memory_does_not_grow)
def test_what_is_kept_once_is_no_leak(world: World, gpus: Any) -> None:
    headroom.test_memory_does_not_grow(world.deployment, gpus, world.judge)
    assert world.outcomes == {"growth_gib": Outcome.PASS, "late_growth_gib": Outcome.PASS}
    assert world.judged["growth_gib"].measurement.value == 1


@broken(headroom.test_memory_does_not_grow)
@pytest.mark.parametrize(
    ("free", "metric"),
    [
        ([12, 12, 12, 9, 3, 3], "growth_gib"),
        ([12, 12, 12, 12, 12, 10], "late_growth_gib"),
        ([None] * 6, "growth_gib"),
    ],
    ids=["at first", "and on", "unseen"],
)
def test_memory_that_grows(world: World, gpus: Any, free: list[Any], metric: str) -> None:
    gpus.free = [(11, gib) for gib in free]
    with pytest.raises(JudgementFailed, match=metric):
        headroom.test_memory_does_not_grow(world.deployment, gpus, world.judge)


def equal(world: World, gpus: Any) -> None:
    headroom.test_ranks_have_equal_headroom(
        world.server(),
        world.deployment,
        gpus,
        world.judge,
    )


@healthy(headroom.test_ranks_have_equal_headroom)
def test_ranks_that_are_alike(world: World, gpus: Any) -> None:
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
    world: World, gpus: Any, free: tuple[Any, Any], outcome: Outcome
) -> None:
    gpus.free = [free]
    with pytest.raises(JudgementFailed):
        equal(world, gpus)
    assert world.outcomes == {"headroom_imbalance_gib": outcome}


def graphs(world: World, gpus: Any, actual: dict[str, float], estimated: dict[str, float]) -> None:
    facts = Facts(graph_pool_actual=actual, graph_pool_estimated=estimated)
    headroom.test_graph_memory_is_as_estimated(
        world.server(startup=Startup(facts=facts)),
        world.deployment,
        gpus,
        world.judge,
    )


@healthy(headroom.test_graph_memory_is_as_estimated)
def test_graphs_within_their_estimate(world: World, gpus: Any) -> None:
    graphs(
        world, gpus, {"Worker_TP0": 1.2, "Worker_TP1": 1.1}, {"Worker_TP0": 1.0, "Worker_TP1": 1}
    )
    assert world.outcomes == {"graph_overshoot_gib": Outcome.PASS}


@broken(headroom.test_graph_memory_is_as_estimated)
def test_graphs_beyond_their_estimate(world: World, gpus: Any) -> None:
    """Shown with its distance, and no failure: what it takes is missing from the headroom, which
    gates."""
    graphs(world, gpus, {"Worker_TP0": 1.0, "Worker_TP1": 2}, {"Worker_TP0": 1, "Worker_TP1": 1})
    (judged,) = world.judged.values()
    assert (judged.measurement.name, judged.measurement.value) == ("graph_overshoot_gib", 1.0)
    assert judged.outcome is Outcome.UNGATED
    assert (judged.margin or 0) < 0


def test_graphs_that_nobody_tells_of(world: World, gpus: Any) -> None:
    with pytest.raises(pytest.skip.Exception, match="log is not observable") as skip:
        graphs(world, gpus, {"Worker_TP0": 1.0}, {})
    assert not isinstance(skip.value, OptionalSkip)
    world.deployment = deployment("fp8-8xh200-tp-ep", options={"enforce_eager": True})
    with pytest.raises(OptionalSkip):
        graphs(world, gpus, {"Worker_TP0": 9.0}, {"Worker_TP0": 1.0})
