"""Known failures: covered until they expire, never for what was not seen to fail."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.errors import InputError
from acceptance.judging import references
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Judgement, Kind, Limit, Measurement, Outcome
from acceptance.judging.known import KnownFailure, load_known, rule

LAST = datetime.date(2026, 12, 31)
ENTRY = """
[[xfail]]
deployment = "fp8-8xh200-dp-*"
check = "test_time_per_output_token"
metric = "tpot_mean_ms"
conditions = { batch = 1 }
reason = "slow below the rank count"
issue = "vllm#23752"
expires = 2026-12-31
"""
CEILING = Limit(kind=Kind.CEILING, upper=10.0, unit="ms", source="s")
AT = {
    "deployment": "fp8-8xh200-dp-ep",
    "check": "test_time_per_output_token",
    "batch": 1,
    "workload": "balanced",
}


def tpot(value: float | None) -> Judgement:
    return judge(Measurement(name="tpot_mean_ms", value=value, unit="ms"), CEILING)


@pytest.fixture
def known(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "SHIPPED", tmp_path)
    (tmp_path / "site.toml").write_text(ENTRY)
    return load_known()


def test_a_failure_is_excused_through_the_last_day_and_counts_from_the_next(known):
    on_time = rule(tpot(20.0), known, today=LAST, **AT)
    assert on_time.excused
    assert on_time.judgement.outcome is Outcome.UNGATED
    assert not on_time.judgement.required
    assert on_time.judgement.limit == CEILING
    for word in ("slow below the rank count", "vllm#23752", "2026-12-31", "20 ms"):
        assert word in on_time.judgement.reason

    late = rule(tpot(20.0), known, today=LAST + datetime.timedelta(days=1), **AT)
    assert not late.excused
    assert late.judgement.outcome is Outcome.FAIL
    assert late.judgement.required
    assert "whose time is over" in late.judgement.reason


def test_what_holds_although_listed_is_told(known):
    ruling = rule(tpot(5.0), known, today=LAST, **AT)
    assert ruling.unexpected
    assert ruling.judgement.outcome is Outcome.PASS
    assert "remove the entry" in ruling.judgement.reason


def test_what_was_not_seen_to_fail_is_never_excused(known):
    ruling = rule(tpot(None), known, today=LAST, **AT)
    assert ruling.judgement == tpot(None)
    assert ruling.judgement.outcome is Outcome.INVALID
    assert not ruling.excused


@pytest.mark.parametrize(
    "other",
    [
        {"deployment": "fp8-8xh200-tp-ep"},
        {"check": "test_throughput"},
        {"batch": 16},
        {"batch": True},
    ],
)
def test_an_entry_excuses_nothing_else(known, other):
    ruling = rule(tpot(20.0), known, today=LAST, **{**AT, **other})
    assert ruling.known is None
    assert ruling.judgement.outcome is Outcome.FAIL


def test_of_several_entries_the_one_that_lasts_longest_holds(known):
    longer = known[0].model_copy(update={"expires": datetime.date(2027, 6, 1), "issue": "new"})
    ruling = rule(tpot(20.0), [longer, *known], today=datetime.date(2027, 1, 1), **AT)
    assert ruling.excused
    assert ruling.known == longer


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("reason =", "reson =", "did you mean 'reason'"),
        ("expires = 2026-12-31", "", "expires"),
        ("expires = 2026-12-31", 'expires = "2026-12-31"', "expires"),
        ('issue = "vllm#23752"', 'issue = ""', "issue"),
        ("[[xfail]]", "[[xfial]]", "unknown key 'xfial'"),
        ("[[xfail]]", "[xfail]", "is not a list"),
    ],
)
def test_an_entry_that_says_too_little_is_refused(tmp_path, monkeypatch, old, new, told):
    monkeypatch.setattr(references, "SHIPPED", tmp_path)
    (tmp_path / "site.toml").write_text(ENTRY.replace(old, new))
    with pytest.raises(InputError, match=r"site\.toml") as error:
        load_known()
    assert told in str(error.value)


def test_shipped_entries_can_be_read():
    assert all(entry.issue for entry in load_known())


@given(st.sampled_from(Outcome), st.dates(), st.dates())
def test_only_a_failure_within_its_time_changes_its_outcome(outcome, expires, today):
    entry = KnownFailure(deployment="*", reason="r", issue="i", expires=expires)
    judgement = Judgement(outcome=outcome, measurement=Measurement(name="m", value=1))
    ruling = rule(judgement, [entry], deployment="d", check="c", today=today)
    covered = outcome is Outcome.FAIL and today <= expires
    assert ruling.excused is covered
    assert (ruling.judgement.outcome is outcome) is not covered
