"""Starting a fleet: what is refused, who dropped out, and what a simulation must show. Without Ray;
tests/cluster runs fleets on one."""

from __future__ import annotations

import configparser
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from reports_fleet import Ill, host_records, write_host

from acceptance.cluster.record import FleetRecord, State
from acceptance.deployments.load import read_deployment
from acceptance.deployments.schema import Lane
from acceptance.fleet.fleet import judge_fleet
from acceptance.fleet.host import Host
from acceptance.fleet.thresholds import thresholds
from acceptance.simulation.faults import read_faults
from reports import fleetsimulated as simulated
from reports.fleet import main
from reports.fleetstart import _need

sys.path.insert(0, str(Path(__file__).parents[1] / "fleet"))

from fleet_hosts import host, place, verdict

LIMITS = thresholds()
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cluster", "auto"], "what each host is to serve is not named"),
        (["--cluster", "auto", "--deployment", "nothing-*"], "no deployment matches"),
        (["--cluster", "auto", "--deployment", "rehearsal-tp-ep", "--plan"], "--plan: not for"),
        (["--cluster", "nowhere", "--deployment", "rehearsal-tp-ep"], "is no address of a Ray"),
        (["--simulate", "3"], "a fleet of 3 says nothing"),
        (["--simulate", "8", "--tier", "full"], "runs its own deployment and checks"),
        (["--resume", "DIR"], "DIR holds no fleet"),
    ],
)
def test_what_is_not_understood_starts_nothing(tmp_path, capsys, words, told):
    words = [word.replace("DIR", str(tmp_path / "DIR")) for word in words]
    folder = [] if "--resume" in words else ["--run-dir", str(tmp_path / "fleet")]
    assert main([*words, *folder]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--simulate", "8"], ["--cluster=auto", "--deployment=r*-tp-ep"]]
)
def test_without_ray_the_way_to_get_it_is_told(tmp_path, capsys, monkeypatch, words):
    there = importlib.util.find_spec
    no_ray = lambda name, package=None: None if name == "ray" else there(name, package)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", no_ray)
    assert main([*words, "--run-dir", str(tmp_path / "fleet")]) == 2
    told = capsys.readouterr().err
    assert "Ray is not installed here" in told
    assert f"{sys.executable} -m pip install 'ray[client]==VERSION'" in told


def test_the_environment_that_accept_simulates_in_has_ray_beside_all_of_the_rehearsal():
    """Locks are installed without resolving, so both must ask for the same release."""
    told = (ROOT / "accept").read_text(encoding="utf-8")
    assert '*" --simulate"* | *" --resume"*) run_env fleet reports.fleet "$@"' in told
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    files = [line.removeprefix("-r ") for line in tox["testenv:fleet"]["deps"].split("\n") if line]
    assert files == ["requirements/rehearsal.txt", "requirements/cluster.txt"]
    rehearsal, cluster = (_locked(ROOT / file) for file in files)
    assert "ray" in cluster
    assert {name: cluster[name] for name in cluster if name in rehearsal} == {
        name: rehearsal[name] for name in rehearsal if name in cluster
    }


def _locked(file: Path) -> dict[str, str]:
    """Release by package."""
    lines = [line.partition(";")[0].strip() for line in file.read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


def test_a_fleet_that_was_run_is_judged_by_its_folder(tmp_path, capsys):
    """By the fleet's names, whatever the hosts call themselves; who dropped out says why."""
    record = FleetRecord(tmp_path, ("pytest",))
    for number in range(6):
        ill = Ill(slow="balanced") if number == 2 else Ill()
        write_host(record.run_of(f"n{number}"), host_records(f"n{number}", ill=ill))
        record.set(f"n{number}", state=State.DONE)
    record.set("n9", state=State.DROPPED, why="its node was lost")
    record.set("n8", state=State.RUNNING)
    assert main([str(tmp_path), "--html", str(tmp_path / "fleet.html")]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "it dropped out: its node was lost" in told
    assert "its run is running" in told
    assert "STANDS OUT: 8 hosts, 2 incomplete, 1 standing out" in told


def test_a_resumed_fleet_needs_what_it_needed():
    words = [sys.executable, "-m", "pytest", "--deployment=fp8-8xh200-*", "--tier", "gate", "-x"]
    assert _need(words).gpus == 8
    assert _need(simulated.words()).gpus == 0


@pytest.mark.parametrize(("count", "sick"), [(4, 1), (7, 1), (8, 2), (16, 4), (64, 4), (100, 4)])
def test_who_is_planted(count, sick):
    hosts = simulated.hosts(count)
    assert len({one.name for one in hosts}) == count
    ill = [one for one in hosts if one.env or one.dies]
    assert [one.name for one in ill] == list(simulated.planted(count))
    assert len(ill) == sick
    for one in ill:
        read_faults(one.env[simulated.VARIABLE])  # raises for what nobody knows
    assert sum(one.dies for one in ill) == (sick > 1)


def test_the_deployment_of_simulated_hosts_can_never_accept():
    (file,) = simulated.DEPLOYMENTS.glob("*.toml")
    assert read_deployment(file).lane is Lane.SIMULATED


def _fleet(*, slow_where="decode-heavy", leaks=2.0, dead=True, x=1.0):
    """Sixteen hosts of which the planted ones are sick as asked."""
    values = {
        place("tpot_median_ms", "decode-heavy-b64"): 100.0,
        place("tpot_median_ms", "balanced-b16"): 90.0,
        place("itl_p99_to_median", "balanced-b16"): 1.1,
        place("resident_growth_gib", "load"): 0.01,
    }
    told = {one.what: name for name, one in simulated.planted(16).items()}
    slower, dropped, jitter, leaking = (told[one.what] for one in simulated.PLANTED)
    hosts = []
    for one in simulated.hosts(16):
        mine = dict(values)
        for spot in mine:
            if one.name == slower and spot.workload == slow_where:
                mine[spot] *= 1.15
            if one.name == jitter and spot.metric == "itl_p99_to_median":
                mine[spot] *= 2
            if one.name == leaking and spot.metric == "resident_growth_gib":
                mine[spot] += leaks
            if one.name == "host-00":
                mine[spot] *= x
        gone = dead and one.name == dropped
        made = host(one.name, mine, verdict=verdict(Lane.SIMULATED))
        hosts.append(Host(name=one.name, torn=("it dropped out: x",)) if gone else made)
    return judge_fleet(hosts, LIMITS)


def test_a_simulation_shows_what_was_planted_and_nothing_else():
    fleet = _fleet()
    assert simulated.missed(fleet, 16) == ""
    assert {one.host.name for one in fleet.standings if one.named} == set(simulated.planted(16))
    assert "leaks memory was planted, and it is not named" in simulated.missed(_fleet(leaks=0), 16)
    assert "drops out was planted" in simulated.missed(_fleet(dead=False), 16)
    assert "15 % slower" in simulated.missed(_fleet(slow_where="balanced"), 16)
    assert "host-00: healthy was planted" in simulated.missed(_fleet(x=1.5), 16)


def test_what_a_simulated_host_is_told():
    words = simulated.words()
    assert "fleet-host" in " ".join(words)
    knobs = [json.loads(one.env[simulated.VARIABLE]) for one in simulated.hosts(16) if one.env]
    assert {"decode": 1.15, "from_batch": simulated.LARGE} in knobs
