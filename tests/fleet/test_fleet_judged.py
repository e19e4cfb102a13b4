"""What is said of a fleet and of its hosts: nothing that is short, unlike or too few passes."""

from __future__ import annotations

import pytest
from fleet_hosts import CELLS, NAME, host, hosts, place, verdict

from acceptance.deployments.schema import Lane
from acceptance.fleet.fleet import judge_fleet
from acceptance.fleet.host import Host
from acceptance.fleet.thresholds import Trait, thresholds
from acceptance.judging.verdict import Verdict

LIMITS = thresholds()
SPEED = {place("tpot_median_ms"): 20.0}


def like(count, **more):
    return [host(f"h{n}", SPEED, **more) for n in range(count)]


def standing(fleet, name):
    return next(one for one in fleet.standings if one.host.name == name)


def test_a_fleet_that_is_well():
    fleet = judge_fleet(like(4), LIMITS)
    assert fleet.well
    assert fleet.word == "ACCEPTED"


@pytest.mark.parametrize(
    ("lane", "word"), [(Lane.SIMULATED, "SIMULATED"), (Lane.REHEARSAL, "REHEARSED")]
)
def test_the_weakest_lane_is_what_a_fleet_is_worth(lane, word):
    fleet = judge_fleet([*like(4), host("x", SPEED, verdict=verdict(lane))], LIMITS)
    assert fleet.lane is lane
    assert fleet.word == word


def test_too_few_hosts_are_no_pass():
    fleet = judge_fleet(like(3), LIMITS)
    assert fleet.word == "INCOMPLETE"
    assert not fleet.well
    assert "among fewer than 4" in fleet.short[0]


def test_hosts_without_values_are_no_pass():
    fleet = judge_fleet([host(f"h{n}", {}) for n in range(5)], LIMITS)
    assert not fleet.well
    assert "no value was recorded" in fleet.short[0]


def test_a_host_stands_out_though_its_run_was_accepted():
    fleet = judge_fleet(hosts("tpot_median_ms", *[20.0] * 8, 24.0), LIMITS)
    assert fleet.word == "STANDS OUT"
    sick = standing(fleet, "h8")
    assert sick.word == "ACCEPTED"
    assert not sick.well
    assert [(p.trait, p.deployment, p.where) for p in sick.patterns] == [
        (Trait.SLOWER, NAME, "balanced")
    ]
    assert all(one.well for one in fleet.standings if one is not sick)


def test_a_pattern_gathers_a_workload_with_its_worst_value():
    sick = host("sick", {place("tpot_median_ms", c): 20 * (1.1 + n) for n, c in enumerate(CELLS)})
    others = [
        host(f"h{n}", dict.fromkeys([place("tpot_median_ms", c) for c in CELLS], 20.0))
        for n in range(8)
    ]
    (pattern,) = standing(judge_fleet([*others, sick], LIMITS), "sick").patterns
    assert len(pattern.distances) == 4  # three cells, and all together
    assert pattern.worst.place.what == CELLS[-1]


def test_a_rejected_host_rejects_the_fleet_and_is_compared():
    rejected = host("bad", {place("tpot_median_ms"): 30.0}, verdict=verdict(said=Verdict.REJECTED))
    fleet = judge_fleet([*like(6), rejected], LIMITS)
    assert fleet.word == "REJECTED"
    assert standing(fleet, "bad").patterns


@pytest.mark.parametrize(
    "dead",
    [
        Host(name="dead", torn=("its run is missing",)),
        host("dead", {place("tpot_median_ms"): 99.0}, torn=("its run broke off",)),
    ],
)
def test_a_host_without_a_whole_run_is_incomplete_and_moves_nobody(dead):
    fleet = judge_fleet([*like(5), dead], LIMITS)
    assert fleet.word == "INCOMPLETE"
    lost = standing(fleet, "dead")
    assert (lost.word, lost.compared, lost.short) == ("INCOMPLETE", False, dead.torn)
    assert all(one.host != "dead" for one in fleet.distances)


def test_a_host_of_another_vllm_is_not_of_this_fleet():
    odd = host("odd", {place("tpot_median_ms"): 99.0}, identity={"vllm": "0.33.0"})
    fleet = judge_fleet([*like(5), odd], LIMITS)
    left = standing(fleet, "odd")
    assert (left.word, left.compared) == ("INCOMPLETE", False)
    assert left.short == ("vllm: 0.33.0, and 0.32.0 in the fleet",)


def test_two_halves_are_no_fleet():
    fleet = judge_fleet(
        [*like(4), *(host(f"x{n}", SPEED, identity={"vllm": "0.33.0"}) for n in range(4))], LIMITS
    )
    assert not fleet.well
    assert not any(one.compared for one in fleet.standings)
    assert "0.32.0 (4), 0.33.0 (4)" in fleet.standings[0].short[0]


def test_a_value_that_its_peers_have_is_missed():
    fleet = judge_fleet([*like(5), host("h9", {place("ttft_mean_ms"): 300.0})], LIMITS)
    short = standing(fleet, "h9")
    assert short.word == "INCOMPLETE"
    assert "its peers have what it has not" in short.short[0]
    assert f"not held against one another: {NAME} balanced-b16 ttft_mean_ms" in fleet.notes


def test_other_drivers_are_told_and_nothing_more():
    fleet = judge_fleet(
        [*like(4, beside={"driver": "580"}), host("x", SPEED, beside={"driver": "570"})], LIMITS
    )
    assert fleet.well
    assert fleet.notes == ("differs between hosts: driver: 580 (4), 570 (1)",)


def test_what_most_runs_lack_names_nobody():
    """Checks that were left out of all are the fleet's to answer for, and no pass."""
    short = verdict(said=Verdict.INCOMPLETE).model_copy(update={"reasons": ("only a part ran",)})
    more = short.model_copy(update={"reasons": ("only a part ran", "a cell was invalid")})
    slow = host("slow", {place("tpot_median_ms"): 24.0}, verdict=short)
    fleet = judge_fleet([*like(6, verdict=short), host("x", SPEED, verdict=more), slow], LIMITS)
    assert fleet.shared == ("8 of 8 runs: only a part ran",)
    assert {one.host.name for one in fleet.standings if one.named} == {"x", "slow"}
    assert standing(fleet, "x").own == ("a cell was invalid",)
    assert not fleet.well
    assert judge_fleet(like(6, verdict=short), LIMITS).word == "INCOMPLETE"


def test_no_host_is_no_fleet():
    fleet = judge_fleet([], LIMITS)
    assert not fleet.well
    assert fleet.word == "INCOMPLETE"
