"""A record that somebody changed is noticed; no report says ACCEPTED where its record does not."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from survival_fuzz import as_bytes, fuzzed, mutated

from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Judgement, Kind, Limit, Measurement, Outcome
from reports.digest import REPORT, seal
from reports.reading import read_results
from reports.recorder import RESULTS, Recorder
from reports.ruling import closing, verdict_of
from reports.schema import (
    Check,
    EndRecord,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    TestRecord,
)
from reports.summary import render_page, render_summary
from reports.verify import main, verify

if TYPE_CHECKING:
    from pathlib import Path

NAME = "fp8-8xh200-tp-ep"
LIMIT = Limit(kind=Kind.CEILING, upper=2.0, unit="ms", source="somewhere")


def opening() -> RunRecord:
    chosen = SelectedDeployment(name=NAME, digest="x", lane=Lane.FULL)
    return RunRecord(time=time.time(), suite_version="1", deployments=(chosen,))


def said(number: int, outcome: Outcome = Outcome.PASS) -> list[Any]:
    check = Check(
        deployment=NAME, lane=Lane.FULL, check="a.py::test_a", nodeid=f"a.py::test_a[{number}]"
    )
    measured = Measurement(name="tpot_mean_ms", value=1.0, unit="ms")
    judged = Judgement(outcome=outcome, measurement=measured, limit=LIMIT)
    now = time.time()
    return [
        JudgementRecord(time=now, check=check, judgement=judged),
        TestRecord(time=now, check=check, phase="call", outcome="passed"),
    ]


def finish(folder: Path, recorder: Recorder) -> None:
    end = closing(read_results(folder), finished=True, pytest_status=0, duration=1.0)
    recorder.write(end)
    results = read_results(folder)
    (folder / REPORT).write_text(render_page(results, folder))
    seal(folder, verdict_of(results).word)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, sealed run of the full lane that accepts."""
    folder = tmp_path_factory.mktemp("made")
    recorder = Recorder(folder)
    recorder.start(opening())
    for number in range(3):
        for record in said(number):
            recorder.write(record)
    finish(folder, recorder)
    assert verify(folder)[0] == []
    assert verdict_of(read_results(folder)).word == "ACCEPTED"
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


@fuzzed
@given(data=st.data())
def test_no_byte_of_the_record_can_be_changed_unseen(made: Path, data: st.DataObject) -> None:
    record = (made / RESULTS).read_bytes()
    at = data.draw(st.integers(0, len(record) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != record[at]))
    changed = data.draw(
        st.sampled_from(
            (
                record[:at] + bytes([other]) + record[at + 1 :],
                record[:at],
                record[:at] + record[at + 1 :],
                record + record[at:],
            )
        )
    )
    (made / RESULTS).write_bytes(changed)
    try:
        found, _ = verify(made)
    finally:
        (made / RESULTS).write_bytes(record)
    assert found


def test_lines_cannot_be_taken_out_put_in_or_reordered(run: Path) -> None:
    whole = (run / RESULTS).read_bytes().splitlines(keepends=True)
    first, *middle, last = whole
    for lines in (
        [first, *middle[1:], last],
        [first, *middle[::-1], last],
        [first, *middle, middle[0], last],
        [first, last],
        whole[:-1],
    ):
        (run / RESULTS).write_bytes(b"".join(lines))
        assert verify(run)[0]
        assert main([str(run)]) == 1


def test_a_failure_cannot_be_turned_into_a_pass(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.start(opening())
    for record in (*said(0), *said(1, Outcome.FAIL)):
        recorder.write(record)
    finish(tmp_path, recorder)
    assert verdict_of(read_results(tmp_path)).word == "REJECTED"
    text = (tmp_path / RESULTS).read_text()
    text = text.replace('"FAIL"', '"PASS"').replace("REJECTED", "ACCEPTED")
    text = text.replace('"exit_status":1', '"exit_status":0')
    (tmp_path / RESULTS).write_text(text)
    told = "\n".join(verify(tmp_path)[0])
    assert "results.jsonl was changed since it was sealed" in told
    assert "acceptance.html says REJECTED, results.jsonl supports ACCEPTED" in told


def test_a_run_that_goes_on_has_no_seal_until_it_ends_again(run: Path) -> None:
    recorder = Recorder(run)
    recorder.start(opening())
    assert "seal" not in json.loads((run / "run.json").read_text())
    assert verdict_of(read_results(run)).word == "INCOMPLETE"
    for record in said(3):
        recorder.write(record)
    finish(run, recorder)
    assert verify(run)[0] == []
    assert main([str(run)]) == 0


RECORDS = [
    opening(),
    *said(0),
    *said(1, Outcome.MARGINAL),
    EndRecord(time=9.0, finished=True, exit_status=0, word="ACCEPTED"),
]
TEXT = "".join(record.model_dump_json(by_alias=True) + "\n" for record in RECORDS)


@fuzzed
@given(text=mutated((TEXT,), '"FAIL"', '"UNGATED"', '"full"', '"simulated"', "false", "null", "\n"))
@example(text=TEXT)
@example(text=TEXT.replace("PASS", "FAIL"))
@example(text=TEXT.replace('"full"', '"simulated"'))
@example(text=TEXT + '{"schema":1')
@example(text=TEXT.replace('"finished":true', '"finished":false'))
@example(text=TEXT + TEXT.splitlines()[0] + "\n")
def test_a_page_accepts_only_what_its_record_accepts(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("page")
    (folder / RESULTS).write_bytes(as_bytes(text))
    results = read_results(folder)
    accepted = verdict_of(results).word == "ACCEPTED"
    for page in (render_page(results, folder), render_summary(results)):
        shown = page.partition('id="verdict-word"')[2][:200]
        assert ("ACCEPTED" in shown) == accepted
    title = render_page(results, folder).partition("<title>")[2].partition("</title>")[0]
    assert title.startswith("ACCEPTED") == accepted
