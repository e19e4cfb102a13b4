"""References: what is refused, and which entry wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.errors import InputError
from acceptance.judging import references
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Kind, Measurement, Outcome
from acceptance.judging.references import find, find_advisory, find_bounds, load_references

ENTRY = """
[[reference]]
deployment = "fp8-8xh200-*"
metric = "tpot_mean_ms"
ceiling = 15.85
unit = "ms"
source = "somewhere"
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes text as the only references file and loads it."""
    monkeypatch.setattr(references, "SHIPPED", tmp_path)

    def write(text: str, name: str = "site.toml"):
        (tmp_path / name).write_text(text)
        return load_references()

    return write


def test_shipped_files_hold_the_recipe_and_name_their_source():
    shipped = load_references()

    found = find(
        shipped,
        "fp4-4xb200-tp-ep",
        "output_throughput",
        workload="prompt-heavy",
        batch=1,
        lane="full",
    )
    assert found is not None
    assert found.reference.kind is Kind.FLOOR
    assert found.limit().lower == pytest.approx(61.0 * 0.95)
    assert "recipes" in found.limit().source
    assert "recipe.toml" in found.limit().source
    assert all(entry.source for entry in shipped)


def test_recipe_does_not_speak_about_other_cells():
    shipped = load_references()
    cell = {"workload": "prompt-heavy", "batch": 1, "lane": "full"}

    for other in ({"batch": 16}, {"workload": "balanced"}, {"lane": "rehearsal"}):
        assert find(shipped, "fp4-4xb200-tp-ep", "tpot_mean_ms", **{**cell, **other}) is None


def test_rehearsal_has_its_numeric_tolerance():
    found = find(load_references(), "rehearsal-dp-ep", "prompt_logprob_abs_diff_mean")
    assert found is not None
    assert found.limit().unit == "nats"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("celing = 3", "did you mean 'ceiling'"),
        ("floor = 3", "exactly one of"),
        ("lower = 0.1", "tolerances of a baseline"),
        ("side = 'lower'", "a bound needs side"),
        ("tolerance = -0.1", "tolerance"),
        ("tolerance = nan", "finite"),
        ("batch = 0", "batch"),
        ("file = 'x'", "unknown key 'file'"),
    ],
)
def test_bad_key_is_refused_with_file_entry_and_reason(written, tmp_path, line, told):
    with pytest.raises(InputError) as refused:
        written(ENTRY + line)
    assert str(tmp_path / "site.toml") in str(refused.value)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('source = "somewhere"', "", "source"),
        ('source = "somewhere"', 'source = ""', "source"),
        ('unit = "ms"', "", "unit"),
        ("ceiling = 15.85", "baseline = 15.85", "a baseline needs tolerance"),
        ("ceiling = 15.85", "baseline = 15.85\nlower = 0.1", "two sides"),
        ("ceiling = 15.85", "bound = 15.85", "a bound needs side"),
        ("ceiling = 15.85", "expected = 1\ntolerance = 0.1", "equality"),
        ("ceiling = 15.85", "", "exactly one of"),
        ("ceiling = 15.85", "ceiling = inf", "finite"),
        ("[[reference]]", "[[references]]", "unknown key 'references'"),
        ("[[reference]]", "[reference]", "not a list"),
        ("[[reference]]", "[[reference]", "line 2"),
    ],
)
def test_incomplete_entry_is_refused(written, old, new, told):
    with pytest.raises(InputError, match=r"site\.toml") as refused:
        written(ENTRY.replace(old, new))
    assert told in str(refused.value)


def test_same_thing_twice_in_one_file_is_refused(written):
    with pytest.raises(InputError, match="again"):
        written(ENTRY + ENTRY.replace("15.85", "99"))


def test_missing_file_is_refused():
    with pytest.raises(InputError, match="no such references file"):
        load_references([Path("nowhere.toml")])


def entry(deployment: str, ceiling: float, more: str = "") -> str:
    text = ENTRY.replace("fp8-8xh200-*", deployment).replace("15.85", str(ceiling))
    return text + more


def test_most_specific_wins_and_says_so(written):
    loaded = written(
        entry("*", 1)
        + entry("fp8-*", 2)
        + entry("fp8-*", 3, "batch = 1")
        + entry("fp8-*", 4, "batch = 1\nworkload = 'balanced'")
        + entry("fp8-8xh200-tp-ep", 5)
    )

    def ceiling(deployment: str, **conditions: object) -> tuple[float | None, str]:
        found = find(loaded, deployment, "tpot_mean_ms", **conditions)
        assert found is not None
        return found.reference.ceiling, found.why

    assert ceiling("fp4-x")[0] == 1
    assert ceiling("fp8-x")[0] == 2
    assert ceiling("fp8-x", batch=16)[0] == 2
    assert ceiling("fp8-x", batch=1)[0] == 3
    number, why = ceiling("fp8-x", batch=1, workload="balanced")
    assert number == 4
    assert "batch 1" in why
    assert "balanced" in why
    assert "most specific of 4" in why
    assert ceiling("fp8-8xh200-tp-ep", batch=1, workload="balanced")[0] == 5


def test_later_file_wins_a_tie(written, tmp_path):
    shipped = written(entry("fp8-*", 1))
    site = tmp_path / "later"
    site.mkdir()
    (site / "a.toml").write_text(entry("fp8-*", 2))
    loaded = load_references([site])
    assert len(loaded) == len(shipped) + 1
    found = find(loaded, "fp8-x", "tpot_mean_ms")
    assert found is not None
    assert found.reference.ceiling == 2


def test_conditions_must_be_known_and_equal(written):
    loaded = written(entry("*", 1, "conditions = { vllm = '0.3*', chunked = true }"))

    def hit(**conditions: object) -> bool:
        return find(loaded, "d", "tpot_mean_ms", **conditions) is not None

    assert hit(vllm="0.32.0", chunked=True)
    assert not hit(vllm="0.32.0", chunked=1)
    assert not hit(vllm="0.29.0", chunked=True)
    assert not hit(vllm="0.32.0")


def test_bounds_do_not_gate(written):
    text = ENTRY.replace("ceiling = 15.85", "bound = 1.2\nside = 'lower'")
    loaded = written(text)
    assert find(loaded, "fp8-8xh200-tp-ep", "tpot_mean_ms") is None
    (bound,) = find_bounds(loaded, "fp8-8xh200-tp-ep", "tpot_mean_ms")
    assert (bound.kind, bound.lower, bound.upper) == (Kind.BOUND, 1.2, None)


def test_tolerance_is_granted_on_the_side_that_limits(written):
    (loaded,) = written(
        ENTRY.replace("ceiling = 15.85", "baseline = -100.0\nlower = 0.1\nupper = 0.2")
    )
    limit = loaded.limit()
    assert limit.lower == pytest.approx(-110)
    assert limit.upper == pytest.approx(-80)


ADVISORY = """
[[reference]]
deployment = "fp8-8xh200-tp-ep"
workload = "balanced"
batch = 16
metric = "tpot_mean_ms"
ceiling = 15.0
unit = "ms"
advisory = true
source = "another engine"
"""


def test_an_advisory_reference_shows_the_distance_and_never_gates(written):
    entries = written(ADVISORY)
    cell = {"workload": "balanced", "batch": 16}
    found = find(entries, "fp8-8xh200-tp-ep", "tpot_mean_ms", **cell)

    for value, told in ((30.0, -1.0), (7.5, 0.5)):
        judged = judge(Measurement(name="tpot_mean_ms", value=value, unit="ms"), found)
        assert judged.outcome is Outcome.UNGATED
        assert judged.margin == pytest.approx(told)
        assert "no reference gates it; advisory" in judged.reason
        assert judged.limit is not None
        assert "another engine" in judged.limit.source


def test_a_gating_reference_beats_an_advisory_one_however_specific(written):
    entries = written(ENTRY + ADVISORY)
    cell = {"workload": "balanced", "batch": 16}
    found = find(entries, "fp8-8xh200-tp-ep", "tpot_mean_ms", **cell)
    assert found is not None
    assert not found.reference.advisory
    assert "of" not in found.why.split(";")[-1]

    beside = find_advisory(entries, "fp8-8xh200-tp-ep", "tpot_mean_ms", **cell)
    measured = Measurement(name="tpot_mean_ms", value=15.3, unit="ms")
    judged = judge(measured, found, advisory=beside)
    assert judged.outcome is Outcome.PASS
    assert "advisory: at most 15 ms, -2.0%" in judged.reason

    seconds = Measurement(name="tpot_mean_ms", value=10**400, unit="ms")
    assert judge(seconds, None, advisory=beside).outcome is Outcome.UNGATED


@pytest.mark.parametrize("number", ["expected = 3", "bound = 3.0\nside = 'lower'"])
def test_only_what_has_a_distance_can_be_advisory(written, number):
    with pytest.raises(InputError, match="can be advisory"):
        written(ADVISORY.replace("ceiling = 15.0", number))


def test_a_file_may_hold_known_failures_too(written):
    assert len(written(ENTRY + "\n[[xfail]]\nanything = 1\n")) == 1
