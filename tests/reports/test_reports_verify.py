"""Record, identity and report belong together, and what does not is named."""

from __future__ import annotations

import json
import shutil

import pytest
from reports_matrix import make_run
from reports_replay import replay, reports_of

from reports.digest import digest_of, seal
from reports.reading import read_results
from reports.recorder import RESULTS
from reports.ruling import verdict_of
from reports.summary import render_page
from reports.verify import main, verify

NAMES = "fp8-8xh200-tp-ep", "fp4-4xb200-dp-ep"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole, sealed run that rejects, with a plain page for a report."""
    folder, slow = tmp_path_factory.mktemp("made") / "run", {"balanced-b16": "slow"}
    return _sealed(make_run(folder, *NAMES[:1], tier="smoke", checks=3, ill=slow).folder)


@pytest.fixture
def run(made, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(made, tmp_path / "run")


def _sealed(folder):
    results = read_results(folder)
    (folder / "acceptance.html").write_text(render_page(results, folder))
    seal(folder, verdict_of(results).word)
    return folder


def test_whole_run_is_verified_whatever_its_verdict(run, capsys):
    assert verify(run)[0] == []
    assert main([str(run)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("REJECTED  ")
    assert digest_of(run).sha256 in told
    assert main([str(run), "--digest", digest_of(run).sha256]) == 0
    assert main([str(run), "--digest", "0" * 64]) == 1


def test_session_seals_what_it_wrote(tmp_path):
    made = make_run(tmp_path / "run", *NAMES[:1], tier="smoke", checks=3)
    report = replay(reports_of(made.folder), tmp_path, run=made.folder)
    found, sealed = verify(made.folder)
    assert found == []
    assert sealed is not None
    assert sealed.word == "ACCEPTED"
    assert f">{sealed.results.sha256}</code>" in report.read_text()


def _cut(run):
    file = run / RESULTS
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])


def _improve(run):
    file = run / RESULTS
    file.write_text(file.read_text().replace('"outcome":"FAIL"', '"outcome":"PASS"'))


def _grow(run):
    file = run / RESULTS
    file.write_text(file.read_text() + file.read_text().splitlines()[1] + "\n")


def _repaint(run):
    file = run / "acceptance.html"
    file.write_text(file.read_text().replace("REJECTED", "ACCEPTED"))


def _retouch(run):
    file = run / "acceptance.html"
    file.write_text(file.read_text().replace("made-up-host", "other-host"))


def _rename(run):
    file = run / "run.json"
    file.write_text(file.read_text().replace("made-up-host", "other-host"))


def _promote(run):
    file = run / "run.json"
    file.write_text(file.read_text().replace('"word": "REJECTED"', '"word": "ACCEPTED"'))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_cut, "was cut from"),
        (_improve, "was changed since it was sealed"),
        (_grow, "grew by"),
        (_repaint, "acceptance.html says ACCEPTED, results.jsonl supports REJECTED"),
        (_retouch, "acceptance.html was changed since it was sealed"),
        (_rename, "run.json says host 'other-host', results.jsonl 'made-up-host'"),
        (_promote, "run.json says ACCEPTED, results.jsonl supports REJECTED"),
        (lambda run: (run / "acceptance.html").unlink(), "acceptance.html is missing"),
        (lambda run: (run / "run.json").unlink(), "run.json is missing"),
    ],
)
def test_damage_is_found_and_named(run, capsys, damage, told):
    damage(run)
    assert main([str(run)]) == 1
    assert told in capsys.readouterr().out


def test_report_that_accepts_without_its_record_does_not_pass(run):
    """Also where somebody made the seal anew."""
    _repaint(run)
    seal(run, "ACCEPTED")
    found, _ = verify(run)
    assert "acceptance.html says ACCEPTED, results.jsonl supports REJECTED" in found
    assert "run.json says ACCEPTED, results.jsonl supports REJECTED" in found


def test_run_that_was_killed_has_no_seal(run, capsys):
    lines = (run / RESULTS).read_text().splitlines(keepends=True)
    (run / RESULTS).write_text("".join(lines[:-1]))
    told = json.loads((run / "run.json").read_text())
    del told["seal"]
    (run / "run.json").write_text(json.dumps(told))
    (run / "acceptance.html").unlink()
    assert main([str(run)]) == 3
    assert "never sealed" in capsys.readouterr().out
    (run / "acceptance.html").write_text(render_page(read_results(run), run))
    assert main([str(run)]) == 3
    _grow(run)
    assert main([str(run)]) == 1
    assert "since acceptance.html was made" in capsys.readouterr().out


def test_nothing_to_read(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds no results.jsonl" in capsys.readouterr().err
