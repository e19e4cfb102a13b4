"""What of a run's observations hosts are held against one another by, and by what rules."""

from __future__ import annotations

import pytest
from fleet_hosts import NAME, place

from acceptance.deployments.schema import Lane
from acceptance.errors import InputError
from acceptance.fleet.readings import readings
from acceptance.fleet.thresholds import DATA, load_thresholds, thresholds
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Broken, Measurement
from acceptance.judging.metrics import METRICS
from acceptance.judging.observed import Observed

RULES = thresholds().rules


def seen(metric, value, *, attempt=1, lane=Lane.FULL, phase="", broken=False, **evidence):
    where = {"phase": phase} if phase else {"workload": "balanced", "batch": 16}
    rules = (Broken(rule="prefix-cache-hits", evidence="4096"),) if broken else ()
    measured = Measurement(name=metric, value=value, unit="u", evidence=evidence, broken=rules)
    return Observed(
        run="r",
        deployment=NAME,
        lane=lane,
        check="test_x",
        judgement=judge(measured, None),
        conditions={"profile": "benchmark", **where},
        attempt=attempt,
    )


def test_only_what_a_rule_speaks_of():
    assert readings([seen("duration_s", 5.0), seen("goodput_server", 1.0)], RULES) == {}


def test_the_last_attempt_counts():
    told = readings([seen("tpot_mean_ms", 21.0, attempt=2), seen("tpot_mean_ms", 90.0)], RULES)
    assert told[place("tpot_mean_ms")].value == 21.0


def test_what_was_invalid_is_not_there():
    assert readings([seen("tpot_mean_ms", 20.0, broken=True)], RULES) == {}
    again = [seen("tpot_mean_ms", 20.0), seen("tpot_mean_ms", 20.0, attempt=2, broken=True)]
    assert readings(again, RULES) == {}


def test_the_worst_device_speaks_for_its_host():
    told = [seen("headroom_gib", v, phase="load", gpu=f"GPU {n}") for n, v in enumerate((6, 4, 7))]
    room = readings(told, RULES)[place("headroom_gib", "load")]
    assert (room.value, room.device) == (4.0, "GPU 1")
    told = [seen("late_growth_gib", v, phase="load", gpu=f"GPU {n}") for n, v in enumerate((0, 2))]
    assert readings(told, RULES)[place("late_growth_gib", "load")].device == "GPU 1"


def test_jitter_is_the_slowest_tokens_against_the_usual():
    told = readings([seen("itl_p99_ms", 30.0), seen("itl_median_ms", 20.0)], RULES)
    assert told[place("itl_p99_to_median")].value == 1.5
    assert place("itl_p99_to_median") not in readings([seen("itl_p99_ms", 30.0)], RULES)


def test_growth_of_the_processes_memory_is_in_the_evidence():
    told = readings([seen("resident_gib", 12.0, phase="load", growth_bytes=3 << 30)], RULES)
    assert told[place("resident_growth_gib", "load")].value == 3.0


def test_a_rehearsal_has_no_speed_to_compare():
    told = [
        seen("tpot_mean_ms", 20.0, lane=Lane.REHEARSAL),
        seen("resident_gib", 9.0, lane=Lane.REHEARSAL, phase="load"),
    ]
    assert [place.metric for place in readings(told, RULES)] == ["resident_gib"]


def test_every_rule_has_a_source_and_a_direction_of_one_place():
    assert len(RULES) > 10
    for rule in RULES:
        assert rule.source
        if rule.metric in METRICS:
            assert rule.higher is METRICS[rule.metric].higher
            assert rule.least == METRICS[rule.metric].tolerance
            assert rule.spread >= METRICS[rule.metric].cv


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'metric = "output_throughput"',
            'metric = "output_throughput"\nhigher = false',
            "declares",
        ),
        ('metric = "tpot_mean_ms"', 'metric = "output_throughput"', "two rules of one metric"),
        ("fewest = 4", "fewest = 3", "greater than or equal to 4"),
        ("[fleet]", "[fleet", "declaration"),
    ],
)
def test_thresholds_that_are_not_understood_are_refused(tmp_path, old, new, told):
    file = tmp_path / "thresholds.toml"
    file.write_text(DATA.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=told):
        load_thresholds(file)
