"""One host against its peers: robust numbers, multiplicity, and what stands out."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from fleet_hosts import CELLS, host, hosts, place

from acceptance.fleet.outliers import ask
from acceptance.fleet.robust import MEDIAN_VARIANCE, TO_SIGMA, chance, peers_of
from acceptance.fleet.thresholds import Trait, thresholds

LIMITS = thresholds()


def named(fleet):
    return {one.host for one in ask(fleet, LIMITS).distances if one.stands_out}


def test_a_host_is_not_its_own_peer():
    peers = peers_of([10.0, 10.0, 11.0, 40.0], 0.01, share=True)[3]
    assert peers.center == 10.0
    assert peers.score(40.0) > 200


def test_the_spread_of_equal_peers_is_the_known_one():
    peers = peers_of([10.0] * 9, 0.01, share=True)[0]
    assert 0.1 < peers.spread < 0.12  # 1 % of 10, and a little for the median of eight
    assert peers_of([10.0] * 9, 0.5, share=False)[0].spread > 0.5


def test_a_measured_spread_counts_where_it_is_larger():
    wide = [8.0, 9.0, 10.0, 11.0, 12.0, 10.0]
    assert peers_of(wide, 0.01, share=True)[5].spread == pytest.approx(1.4826 * 1.146, rel=0.01)


def test_fewer_than_half_of_the_peers_cannot_carry_the_center_away():
    assert peers_of([10.0] * 7 + [90.0] * 5, 0.01, share=True)[0].center == 10.0


@pytest.mark.parametrize("share", [True, False])
def test_one_sort_gives_what_the_plain_definition_gives(share):
    """Medians without each value, exactly; of few values and of values that are equal too."""
    drawn = random.Random(8)
    for count in range(2, 120):
        values = [
            float(drawn.choice((drawn.gauss(1, 1), drawn.randrange(-3, 4)))) for _ in range(count)
        ]
        for number, peers in enumerate(peers_of(values, 0.01, share=share)):
            others = [*values[:number], *values[number + 1 :]]
            center = statistics.median(others)
            if share and center == 0:
                assert peers is None
                continue
            mad = statistics.median(abs(value - center) for value in others)
            sigma = max(TO_SIGMA * mad, 0.01 * (abs(center) if share else 1.0))
            assert peers.center == center
            assert peers.spread == sigma * math.sqrt(1 + MEDIAN_VARIANCE / len(others))


def test_shares_of_nothing_are_not_asked():
    assert peers_of([1.0, 0.0, 0.0, 0.0], 0.1, share=True)[0] is None
    assert peers_of([1.0, 0.0, 0.0, 0.0], 0.1, share=False)[0] is not None
    assert peers_of([1.0], 0.1, share=False)[0] is None


def test_more_questions_ask_for_more():
    assert chance(6.0, 20.0, 1) < 1e-4
    assert chance(6.0, 20.0, 1000) == pytest.approx(1000 * chance(6.0, 20.0, 1))
    assert chance(0.0, 20.0, 1000) == 1.0
    assert chance(6.0, 5.0, 1) > chance(6.0, 50.0, 1)


def test_identical_hosts_do_not_stand_out():
    assert named(hosts("tpot_median_ms", *[20.0] * 16)) == set()


def test_what_is_far_and_worse_stands_out():
    assert named(hosts("tpot_median_ms", *[20.0] * 15, 23.0)) == {"h15"}
    assert named(hosts("output_throughput", *[800.0] * 15, 680.0)) == {"h15"}


def test_what_is_far_and_better_is_told_and_does_not():
    asked = ask(hosts("tpot_median_ms", *[20.0] * 15, 17.0), LIMITS)
    assert [one.host for one in asked.distances if one.ahead] == ["h15"]
    assert not any(one.stands_out for one in asked.distances)


def test_what_is_certain_but_small_does_not_matter():
    assert named(hosts("kv_cache_size_tokens", *[482_176.0] * 31, 475_000.0)) == set()
    assert named(hosts("kv_cache_size_tokens", *[482_176.0] * 31, 460_000.0)) == {"h31"}


def test_gib_are_held_against_gib():
    grown = hosts("late_growth_gib", *[0.0] * 15, 0.9, what="load")
    assert named(grown) == {"h15"}
    assert named(hosts("late_growth_gib", *[0.0] * 15, 0.2, what="load")) == set()
    assert named(hosts("headroom_gib", *[6.1] * 15, 4.0, what="load")) == {"h15"}


def test_cells_together_find_what_is_small_in_each():
    def one(name, share):
        return host(name, {place("tpot_median_ms", cell): 20.0 * share for cell in CELLS})

    fleet = [*(one(f"h{n}", 1.0) for n in range(31)), one("sick", 1.045)]
    out = [found for found in ask(fleet, LIMITS).distances if found.stands_out]
    assert [(found.host, found.cells, found.place.what) for found in out] == [
        ("sick", 3, "balanced")
    ]
    assert out[0].worse == pytest.approx(0.045)
    assert out[0].trait is Trait.SLOWER


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_hosts_are_not_asked(count):
    assert ask(hosts("tpot_median_ms", *[20.0] * (count - 1), 60.0), LIMITS).distances == ()


def test_a_value_that_too_few_have_is_told():
    fleet = hosts("tpot_median_ms", *[20.0] * 5)
    fleet[0] = host("h0", {place("tpot_median_ms"): 20.0, place("ttft_mean_ms"): 300.0})
    assert ask(fleet, LIMITS).unasked == (place("ttft_mean_ms"),)


def test_four_hosts_name_one_that_is_far_off():
    assert named(hosts("tpot_median_ms", 20.0, 20.1, 19.9, 30.0)) == {"h3"}


def test_a_fall_beyond_a_tolerance_of_all_there_is_counts_by_its_factor():
    assert named(hosts("ttft_p99_ms", *[500.0] * 31, 1500.0)) == {"h31"}
    assert named(hosts("ttft_p99_ms", *[500.0] * 31, 1000.0)) == set()
