"""results.jsonl: what is written is read back, by many writers, across a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.deployments.schema import Lane
from acceptance.judging.judge import judge
from acceptance.judging.judgement import Kind, Limit, Measurement
from acceptance.secrets import Redactor
from reports.reading import read_results
from reports.recorder import Recorder
from reports.schema import (
    Check,
    EndRecord,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    Trace,
    json_schema,
)

LIMIT = Limit(kind=Kind.CEILING, upper=2, source="test")


def judgement(value: object = 1.0, **more: object) -> JudgementRecord:
    measurement = Measurement.model_validate({"name": "m", "value": value, **more})
    return JudgementRecord(
        time=1.0,
        check=Check(deployment="d", lane=Lane.FULL, check="c", nodeid="c"),
        judgement=judge(measurement, LIMIT),
    )


def run(**more: object) -> RunRecord:
    return RunRecord.model_validate(
        {
            "time": 1.0,
            "suite_version": "1",
            "deployments": [SelectedDeployment(name="d", digest="x", lane=Lane.FULL)],
            **more,
        }
    )


def test_records_come_back_as_they_were(tmp_path):
    written = [
        run(argv=("pytest", "-m", "fp4")),
        judgement(evidence={"waves": [1, 2.5], "deep": {"ok": True}}),
        ServerRecord(time=2, deployment="d", outcome="failed", trace=Trace(cause="boom")),
        EndRecord(time=3, finished=True, exit_status=0, word="ACCEPTED"),
    ]
    recorder = Recorder(tmp_path)
    recorder.start(written[0])
    for record in written[1:]:
        recorder.write(record)

    results = read_results(tmp_path)
    assert list(results.records) == written
    assert results.problems == ()
    assert results.run == written[0]
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == 1


def test_judgements_are_synced_with_what_follows_them(tmp_path, monkeypatch):
    """Each alone cost more than the judging of a cell."""
    recorder = Recorder(tmp_path)
    synced = []
    monkeypatch.setattr("reports.recorder.os.fsync", synced.append)
    recorder.write(judgement())
    recorder.write(judgement())
    assert synced == []
    recorder.write(ServerRecord(time=2, deployment="d", outcome="stopped"))
    assert len(synced) == 1
    assert len(read_results(tmp_path).records) == 3


def test_secrets_reach_no_file(tmp_path):
    recorder = Recorder(tmp_path, Redactor(["hush-hush"]))
    recorder.start(run(argv=("pytest", "--api-key=hush-hush"), vllm="hush-hush"))
    recorder.write(
        judgement("hush-hush", evidence={"hush-hush": ["hush-hush", {"a": "hush-hush"}]})
    )
    for file in tmp_path.iterdir():
        assert b"hush-hush" not in file.read_bytes()
    assert "[secret]" in (tmp_path / "run.json").read_text()


def test_what_json_lacks_is_written_without_loss_of_the_line(tmp_path):
    odd = {"path": Path("/x"), "set": {3}, "inf": math.inf, "half": "a\ud800b", "raw": b"\xff"}
    Recorder(tmp_path).write(judgement(math.nan, samples=(1.0, math.nan), evidence=odd))
    results = read_results(tmp_path)
    assert results.problems == ()
    (record,) = results.records
    assert isinstance(record, JudgementRecord)
    measurement = record.judgement.measurement
    assert measurement.value is None
    assert measurement.samples == (1.0,)
    assert measurement.evidence["samples_not_finite"] == 1
    assert measurement.evidence["path"] == "/x"
    assert measurement.evidence["inf"] is None


@given(st.text(), st.text())
def test_any_text_is_one_line(tmp_path_factory, name, evidence):
    folder = tmp_path_factory.mktemp("run")
    Recorder(folder).write(judgement("v", evidence={name: evidence}))
    assert (folder / "results.jsonl").read_bytes().count(b"\n") == 1
    (record,) = read_results(folder).records
    assert isinstance(record, JudgementRecord)
    assert record.judgement.measurement.evidence == {name: evidence}


def test_torn_line_is_reported_and_spoils_no_other(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.write(judgement(1.0))
    whole = recorder.results.read_bytes()
    with recorder.results.open("ab") as file:
        file.write(whole[:40])
    assert [p.line for p in read_results(tmp_path).problems] == [2]

    recorder.write(judgement(1.5))
    results = read_results(tmp_path)
    assert len(results.records) == 2
    assert [(p.line, "torn" in p.what) for p in results.problems] == [(2, True)]


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b'"x"',
        b"\xff\xfe",
        b"NaN",
        b'{"schema": 2, "type": "end"}',
        b'{"schema": 1, "type": "dance", "time": 1}',
        b'{"schema": 1, "type": "end", "time": 1}',
        b'{"type": "end", "time": 1, "finished": true, "exit_status": 0, "word": "ACCEPTED"}',
        b"[" * 100_000,
    ],
)
def test_line_that_says_nothing_is_a_problem_not_a_crash(tmp_path, line):
    (tmp_path / "results.jsonl").write_bytes(line + b"\n")
    results = read_results(tmp_path)
    assert results.records == ()
    assert len(results.problems) == 1


def test_no_file_is_a_problem(tmp_path):
    assert "cannot be read" in str(read_results(tmp_path).problems[0])


ENDLESS = """
import sys
from pathlib import Path
from acceptance.judging.judgement import Judgement, Measurement, Outcome
from reports.recorder import Recorder
from reports.schema import Check, JudgementRecord

recorder = Recorder(Path(sys.argv[1]))
most = int(sys.argv[2])
n = 0
while n < most:
    measurement = Measurement(name=sys.argv[3], value=n, evidence={"pad": "x" * 20000})
    judgement = Judgement(outcome=Outcome.PASS, measurement=measurement)
    recorder.write(JudgementRecord(time=0.0, check=Check(), judgement=judgement))
    n += 1
"""


def start(folder: Path, most: int, name: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", ENDLESS, str(folder), str(most), name]
    return subprocess.Popen(words, cwd=Path(__file__).parents[2])


def test_many_processes_lose_no_line(tmp_path):
    writers = [start(tmp_path, 25, f"w{n}") for n in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    results = read_results(tmp_path)
    assert results.problems == ()
    assert len(results.records) == 100


def test_threads_lose_no_line(tmp_path):
    recorder = Recorder(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(recorder.write, [judgement(float(n)) for n in range(40)]))
    assert len(read_results(tmp_path).records) == 40


def test_sigkill_loses_at_most_the_line_being_written(tmp_path):
    writer = start(tmp_path, 10**6, "w")
    file = tmp_path / "results.jsonl"
    deadline = time.monotonic() + 60
    while not (file.exists() and file.stat().st_size > 200_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(60)

    Recorder(tmp_path).write(judgement())  # the dead writer's lock is free again
    results = read_results(tmp_path)
    assert len(results.problems) <= 1
    values = [r.judgement.measurement.value for r in results.records[:-1]]  # type: ignore[union-attr]
    assert len(values) >= 10
    assert values == list(range(len(values)))


def test_schema_file_is_current():
    file = Path(__file__).parents[2] / "reports" / "results.schema.json"
    assert file.read_text() == json_schema(), "run: python -m reports.schema > " + file.name
