"""`python -m reports.fleet` on made-up fleets whose sick hosts are known."""

from __future__ import annotations

import re

import pytest
from reports_command import called
from reports_fleet import Ill, host_records, write_host

from acceptance.deployments.schema import Lane
from acceptance.fleet.fleet import judge_fleet
from acceptance.fleet.thresholds import Trait, thresholds
from reports.fleet import main
from reports.fleethosts import host_of, hosts_of
from reports.reading import Results

LIMITS = thresholds()
SICK = {
    "node-07": Ill(slow="decode-heavy"),
    "node-21": Ill(jitter=True),
    "node-42": Ill(leaks=0.6),
    "node-63": Ill(dead=True),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Run directories of 64 hosts, four of them sick."""
    folder = tmp_path_factory.mktemp("fleet")
    names = [f"node-{n:02d}" for n in range(64)]
    return [
        write_host(folder / n, host_records(n, fleet=64, ill=SICK.get(n, Ill()))) for n in names
    ]


@pytest.fixture
def small(tmp_path):
    """Writes a fleet of a few hosts; ill by host."""

    def write(count: int = 5, lane: Lane = Lane.FULL, **ill: Ill):
        names = [f"n{number}" for number in range(count)]
        return [
            write_host(tmp_path / n, host_records(n, ill=ill.get(n, Ill()), lane=lane))
            for n in names
        ]

    return write


def test_of_64_hosts_exactly_the_sick_are_named(large):
    fleet = judge_fleet(hosts_of(large, LIMITS), LIMITS)
    by_name = {one.host.name: one for one in fleet.standings}
    assert {name for name, one in by_name.items() if not one.well} == set(SICK)
    traits = {name: {(p.trait, p.where) for p in by_name[name].patterns} for name in SICK}
    assert traits["node-07"] == {(Trait.SLOWER, "decode-heavy")}
    assert {trait for trait, _ in traits["node-21"]} == {Trait.JITTER}
    assert {trait for trait, _ in traits["node-42"]} == {Trait.LEAKING, Trait.LESS_MEMORY}
    assert traits["node-63"] == set()
    assert by_name["node-63"].word == "INCOMPLETE"
    assert {by_name[name].word for name in SICK if name != "node-63"} == {"ACCEPTED"}
    assert fleet.word == "STANDS OUT"


def test_in_healthy_fleets_nobody_is_named():
    for fleet in range(20):
        records = [host_records(f"n{n}", fleet=fleet) for n in range(16)]
        judged = judge_fleet([host_of(Results(one), LIMITS) for one in records], LIMITS)
        out = [p for one in judged.standings for p in one.patterns]
        assert judged.well, (fleet, out)


def test_a_fleet_of_64_in_words_and_as_a_page(large, tmp_path, capsys):
    page = tmp_path / "fleet.html"
    (large[7] / "acceptance.html").write_text("its own", encoding="utf-8")
    assert main([*map(str, large), "--html", str(page)]) == 1
    told = capsys.readouterr().out
    assert "STANDS OUT: 64 hosts, 1 incomplete, 3 standing out" in told
    flat = " ".join(told.split())
    for words in (
        "slower in decode-heavy",
        "jitter in",
        "leaking in",
        "on GPU 3",
        "its run broke off",
        "peers' median",
    ):
        assert words in flat, words
    text = page.read_text(encoding="utf-8")
    assert text.count(" stands out</td>") > 4
    href = re.search(r'<a href="([^"]+)" aria-label="report of node-07"', text)[1]
    assert (page.parent / href).resolve() == (large[7] / "acceptance.html").resolve()
    assert 'src="http' not in text
    assert 'href="http' not in text
    assert "lane)" not in text


def test_a_fleet_that_is_well_exits_zero(small, capsys):
    assert main([str(run) for run in small()]) == 0
    assert "ACCEPTED: 5 hosts\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lane", "word"), [(Lane.SIMULATED, "SIMULATED"), (Lane.REHEARSAL, "REHEARSED")]
)
def test_what_no_gpu_served_is_labelled_everywhere(small, tmp_path, capsys, lane, word):
    page = tmp_path / "fleet.html"
    assert main([*map(str, small(lane=lane)), "--html", str(page)]) == 0
    told, text = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert f"{word} ({lane} lane): 5 hosts" in told
    assert "no deployment was accepted" in " ".join(told.split())
    assert "ACCEPTED" not in told + text
    sections = re.findall(r'<h2 id="(?:hosts|outliers|map-\d+)">.*?</h2>', text)
    assert len(sections) >= 3
    assert all(f'<span class="lane">{lane}</span>' in section for section in sections)


def test_too_few_hosts_are_no_pass(small, capsys):
    assert main([str(run) for run in small(3)]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "among fewer than 4 none can be said to stand out" in told
    assert "INCOMPLETE: 3 hosts" in told


def test_a_run_that_is_not_there_is_an_incomplete_host(small, tmp_path, capsys):
    runs = [*small(), tmp_path / "n9"]
    assert main([str(run) for run in runs]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "its run is missing" in told
    assert "INCOMPLETE: 6 hosts, 1 incomplete" in told


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"vllm": "0.33.0"}, "vllm: 0.33.0, and 0.32.0 in the fleet"),
        ({"digest": "xyz"}, "8xh200-tp-ep xyz, and fp8-8xh200-tp-ep abc in the fleet"),
    ],
)
def test_what_was_served_otherwise_is_no_like_host(small, tmp_path, capsys, other, told):
    odd = write_host(tmp_path / "odd", host_records("odd", ill=Ill(slow="balanced"), **other))
    assert main([*map(str, small()), str(odd)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert told in said
    assert said.endswith("INCOMPLETE: 6 hosts, 1 incomplete")
    assert "stands out" not in said


def test_hosts_of_one_name_are_told_apart(small, tmp_path):
    again = write_host(tmp_path / "again", host_records("n0"))
    names = [host.name for host in hosts_of([*small(4), again], LIMITS)]
    assert names == ["n0 (n0)", "n1", "n2", "n3", "n0 (again)"]


def test_arguments_that_are_not_understood_exit_two(small, tmp_path, capsys):
    runs = [str(run) for run in small()]
    assert main([*runs, runs[0]]) == 2
    assert "is named twice" in capsys.readouterr().err
    assert main([*runs, "--html", str(tmp_path / "none" / "fleet.html")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "neither")]) == 2
    assert "nowhere: its run is missing" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_foreign_text_is_harmless(small, tmp_path, capsys):
    name = "<script>x</script>\x1b[31m"
    odd = write_host(tmp_path / "odd", host_records(name, vllm="<b>"))
    page = tmp_path / "fleet.html"
    assert main([*map(str, small()), str(odd), "--html", str(page)]) == 1
    assert "\x1b" not in capsys.readouterr().out
    assert "<script>x" not in page.read_text(encoding="utf-8")


def test_command_line(small):
    done = called("reports.fleet", *small())
    assert done.returncode == 0, done.stderr
    assert "ACCEPTED" in done.stdout
