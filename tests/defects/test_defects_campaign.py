"""What runs beside what, and that nothing which goes wrong is lost. No run is made."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from defects_campaign import Campaign
from defects_catalogue import catalogue
from defects_scoring import Ran, Scored

from reports.reading import Results

if TYPE_CHECKING:
    from pathlib import Path

    from defects_running import Asked

TIMED, UNTIMED, ELSEWHERE = "ttft-20-percent", "early-end", "exit-0-in-start"
TWIN = "healthy.speed.simulated-fp8-8xh200-tp-ep"


@dataclass
class Noted:
    """In place of Runs. events: which run began and ended, in order. fails: a run that cannot be
    made."""

    fails: str = ""
    events: list[str] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def run(self, name: str, asked: Asked) -> Ran:
        with self.guard:
            self.events.append(f"{name} begins")
            self.asked[name] = asked
        if name == self.fails:
            raise OSError(f"{name} cannot be made")
        with self.guard:
            self.events.append(f"{name} ends")
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
    assert noted.events[-2:] == ["speed begins", "speed ends"]
    assert {"speed-untimed ends", f"{ELSEWHERE} ends"} <= set(noted.events)


def test_what_is_untimed_has_its_healthy_twin_among_what_is_timed(campaign: Campaign) -> None:
    noted = run(campaign, TIMED, UNTIMED)
    assert list(noted.injected("speed-untimed")) == [f"defect-02-{UNTIMED}"]
    healthy, defect = noted.injected("speed").items()
    assert (healthy[0], defect[0]) == (f"defect-00-{TWIN.replace('.', '-')}", f"defect-01-{TIMED}")
    selected = {part for name in (TIMED, UNTIMED) for part in catalogue()[name].select}
    assert set(healthy[1].pop("only")) == selected
    assert not healthy[1], "nothing is wrong with it"


def test_everything_is_scored_and_each_once(campaign: Campaign) -> None:
    kept: list[str] = []
    campaign.keep = lambda name, _: kept.append(name)
    run(campaign, TIMED, UNTIMED, ELSEWHERE)
    assert sorted(kept) == sorted(campaign.scores)
    assert set(kept) >= {TIMED, UNTIMED, ELSEWHERE, TWIN}
    assert {found.scored for found in campaign.scores.values()} == {Scored.BROKEN}


def test_without_what_is_measured_nothing_is(campaign: Campaign) -> None:
    noted = run(campaign, ELSEWHERE)
    assert not any(event.startswith("speed") for event in noted.events)


@pytest.mark.parametrize("name", ["speed-untimed", "speed", ELSEWHERE])
def test_a_run_that_cannot_be_made_is_told(campaign: Campaign, name: str) -> None:
    assert isinstance(campaign.runs, Noted)
    campaign.runs.fails = name
    with pytest.raises(OSError, match=f"{name} cannot be made"):
        run(campaign, TIMED, UNTIMED, ELSEWHERE)
