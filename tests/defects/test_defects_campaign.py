"""What runs beside what, and that nothing which goes wrong is lost. No run is made."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from defects_campaign import Campaign, cpu_features
from defects_catalogue import catalogue
from defects_scoring import Ran, Scored

from reports.reading import Results

if TYPE_CHECKING:
    from defects_running import Asked

TIMED, UNTIMED, HANG = "ttft-20-percent", "early-end", "hang-at-the-end-of-a-load"
ELSEWHERE = "exit-0-in-start"
TWIN = "healthy.speed.simulated-fp8-8xh200-tp-ep"


@dataclass
class Noted:
    """In place of Runs, which waits for what a run of measurements waits for. ended: which run
    ended, in order. fails: a run that cannot be made."""

    fails: str = ""
    ended: list[str] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def run(self, name: str, asked: Asked) -> Ran:
        with self.guard:
            self.asked[name] = asked
        for wrong in self.injected(name).values():
            while "wait_for" in wrong and not Path(wrong["wait_for"]).exists():
                time.sleep(0.01)
        if name == self.fails:
            raise OSError(f"{name} cannot be made")
        with self.guard:
            self.ended.append(name)
        return Ran(0, "", Results(), 1.0)

    def injected(self, name: str) -> dict[str, dict[str, Any]]:
        """What is put into each deployment of a run."""
        found: dict[str, dict[str, Any]] = json.loads(self.asked[name].env["ACCEPTANCE_DEFECT"])
        return found


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    monkeypatch.setattr("defects_campaign.build_library", lambda _: None)
    monkeypatch.setattr("defects_campaign.Runs", lambda *_: Noted())
    return Campaign(tmp_path)


def run(campaign: Campaign, *names: str) -> Noted:
    runs = campaign.runs
    assert isinstance(runs, Noted)
    campaign.run([catalogue()[name] for name in names])
    return runs


def test_what_is_timed_begins_when_everything_else_has_ended(campaign: Campaign) -> None:
    noted = run(campaign, TIMED, UNTIMED, ELSEWHERE)
    assert noted.ended[-1] == "speed"
    assert ELSEWHERE in noted.ended


def test_what_is_untimed_waits_for_nobody_and_comes_first(campaign: Campaign) -> None:
    noted = run(campaign, TIMED, UNTIMED, HANG)
    waits = {name: "wait_for" in wrong for name, wrong in noted.injected("speed").items()}
    assert (
        list(waits)
        == sorted(waits)
        == [
            f"defect-00-{HANG}",
            f"defect-01-{UNTIMED}",
            f"defect-02-{TWIN.replace('.', '-')}",
            f"defect-03-{TIMED}",
        ]
    )
    assert list(waits.values()) == [False, False, True, True]


def test_the_healthy_twin_selects_what_the_untimed_do_as_well(campaign: Campaign) -> None:
    noted = run(campaign, TIMED, UNTIMED)
    [healthy] = (one for name, one in noted.injected("speed").items() if "healthy" in name)
    selected = {part for name in (TIMED, UNTIMED) for part in catalogue()[name].select}
    assert set(healthy["only"]) == selected
    assert "simulation" not in healthy


def test_everything_is_scored_and_each_once(campaign: Campaign) -> None:
    kept: list[str] = []
    campaign.keep = lambda name, _: kept.append(name)
    run(campaign, TIMED, UNTIMED, ELSEWHERE)
    assert sorted(kept) == sorted(campaign.scores)
    assert set(kept) >= {TIMED, UNTIMED, ELSEWHERE, TWIN}
    assert {found.scored for found in campaign.scores.values()} == {Scored.BROKEN}


def test_without_what_is_measured_nothing_is(campaign: Campaign) -> None:
    noted = run(campaign, ELSEWHERE)
    assert "speed" not in noted.asked


@pytest.mark.parametrize("name", ["speed", ELSEWHERE])
def test_a_run_that_cannot_be_made_is_told(campaign: Campaign, name: str) -> None:
    assert isinstance(campaign.runs, Noted)
    campaign.runs.fails = name
    with pytest.raises(OSError, match=f"{name} cannot be made"):
        run(campaign, TIMED, UNTIMED, ELSEWHERE)


@pytest.mark.parametrize("features", [{"sse2"}, {"sse2", "amx_tile"}])
def test_what_this_cpu_does_not_do_is_left_out_and_said(
    campaign: Campaign,
    features: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("defects_campaign.cpu_features", lambda: features)
    run(campaign, "seed-in-parts", ELSEWHERE)
    left_out = "amx_tile" not in features
    assert ("seed-in-parts" not in campaign.scores) == left_out
    assert ("seed-in-parts is left out" in capsys.readouterr().err) == left_out
    assert ELSEWHERE in campaign.scores


def test_features_of_this_cpu_are_read() -> None:
    assert cpu_features() >= {"sse2"} or cpu_features() >= {"asimd"}
