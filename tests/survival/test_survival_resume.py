"""--resume DIR: what is kept, what is run again, what is refused. In-process, but for the runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.deployments.schema import Lane
from acceptance.errors import InputError
from acceptance.judging.judgement import Judgement, Measurement, Outcome
from acceptance.serving.custody import LOST_WARDEN
from fixtures import resume
from fixtures.workers import joined
from reports.reading import read_results
from reports.recorder import RESULTS, Recorder, sessions
from reports.ruling import verdict_of
from reports.schema import (
    Check,
    EndRecord,
    GpuIdentity,
    JudgementRecord,
    RunRecord,
    SelectedDeployment,
    ServerRecord,
    TestRecord,
    Trace,
)
from reports.sessions import done, standing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reports.schema import AnyRecord

ASKED = {"profile": "benchmark", "references": [], "waived": []}


def run(**more: Any) -> RunRecord:
    given = {"name": "d", "digest": "x", "lane": Lane.SIMULATED}
    return RunRecord.model_validate(
        {"time": 1.0, "suite_version": "1", "suite_commit": "abc", "vllm": "0.32.0", "tier": "gate"}
        | {
            "deployments": [SelectedDeployment(**given)],
            "argv": ("pytest", "--run-dir", "x", "-n2"),
        }  # type: ignore[arg-type]
        | more
    )


def judged(
    name: str, outcome: Outcome = Outcome.PASS, *, metric: str = "m", required: bool = True
) -> JudgementRecord:
    said = Judgement(
        outcome=outcome, measurement=Measurement(name=metric, value=1.0), required=required
    )
    return JudgementRecord(time=2.0, check=Check(deployment="d", nodeid=name), judgement=said)


def of_test(name: str, outcome: str = "passed", **more: Any) -> TestRecord:
    return TestRecord.model_validate(
        {
            "time": 3.0,
            "check": Check(deployment="d", nodeid=name),
            "phase": "call",
            "outcome": outcome,
        }
        | more
    )


def server(outcome: str, cause: str = "") -> ServerRecord:
    return ServerRecord.model_validate(
        {"time": 2.0, "deployment": "d", "outcome": outcome, "trace": Trace(cause=cause)}
    )


END = EndRecord(time=9.0, finished=True, exit_status=0, word="SIMULATED")
CRASH = Trace(cause="worker 'gw0' crashed while running 'a'")

KEPT: dict[str, Sequence[AnyRecord]] = {
    "passed": [judged("a"), of_test("a")],
    "passed without a judgement": [of_test("a")],
    "a FAIL, and nothing after it": [judged("a", Outcome.FAIL)],
    "an INVALID measurement": [judged("a", Outcome.INVALID), of_test("a", "failed", judged=True)],
    "without a reference": [judged("a", Outcome.UNGATED), of_test("a")],
    "what the deployment cannot do": [
        judged("a", Outcome.NOT_RUN, required=False),
        of_test("a", "skipped"),
    ],
    "a test that broke": [of_test("a", "failed", error="KeyError")],
    "a server that died": [of_test("a", "failed", error="ServerError", trace=Trace(cause="OOM"))],
    "an expected failure": [of_test("a", "xfailed")],
}
AGAIN: dict[str, Sequence[AnyRecord]] = {
    "judged, and cut off before its end": [judged("a")],
    "not run for a reason": [judged("a", Outcome.NOT_RUN), of_test("a", "skipped", phase="setup")],
    "skipped without a judgement": [of_test("a", "skipped")],
    "a worker that died": [judged("a"), of_test("a", "failed", trace=CRASH)],
    "a client that died": [of_test("a", "failed", phase="setup", error="ObservationError")],
    "a warden that died": [
        of_test(
            "a", "failed", error="ServerError", trace=Trace(cause=f"d {LOST_WARDEN} while serving")
        )
    ],
}


@pytest.mark.parametrize("case", KEPT)
def test_what_says_something_is_kept(case: str) -> None:
    assert done(KEPT[case]) == {"a"}


@pytest.mark.parametrize("case", AGAIN)
def test_what_says_nothing_is_run_again(case: str) -> None:
    assert done(AGAIN[case]) == frozenset()


@pytest.mark.parametrize("case", AGAIN)
def test_and_what_it_says_then_counts(case: str) -> None:
    """The verdict is that of an unbroken run, and nothing is taken out of the record."""
    records = [run(), *AGAIN[case], run(), judged("a"), of_test("a"), END]
    kept, replaced = standing(records)
    assert [*replaced] == [*AGAIN[case]]
    assert len(kept) + len(replaced) == len(records)


def test_a_failure_is_never_replaced(tmp_path: Path) -> None:
    """Not by a record that says that it was run again, whoever wrote that."""
    recorder = Recorder(tmp_path)
    for record in (judged("a", Outcome.FAIL), of_test("a", "failed", judged=True)):
        recorder.write(run())
        recorder.write(record)
    for record in (of_test("b", "failed", error="KeyError"), server("failed", "OOM")):
        recorder.write(record)
    for record in (run(), judged("a"), of_test("a"), judged("b"), of_test("b"), END):
        recorder.write(record)
    verdict = verdict_of(read_results(tmp_path))
    assert verdict.word == "REJECTED"
    assert len(verdict.reasons) == 3


def test_a_server_that_lost_its_warden_is_forgotten_when_the_run_goes_on() -> None:
    lost = server("failed", f"d {LOST_WARDEN} while serving")
    assert standing([run(), lost])[1] == []
    assert standing([run(), lost, run()])[1] == [lost]


def test_sessions_are_told_in_run_json(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.start(run(host="one"), **ASKED)
    recorder.write(judged("a"))
    with (tmp_path / RESULTS).open("ab") as file:
        file.write(b'{"schema":1,"ti')
    recorder.start(run(host="two"), **ASKED, kept=1)
    told = sessions(tmp_path)
    assert [(one["host"], one["torn_bytes_cut"], one.get("kept")) for one in told] == [
        ("one", 0, None),
        ("two", 15, 1),
    ]
    results = read_results(tmp_path)
    assert results.problems == ()
    assert len(results.records) == 3


CHANGED = {
    "suite": {"suite_commit": "abd"},
    "vllm": {"vllm": "0.33.0"},
    "driver": {"driver": "580.1"},
    "gpus": {"gpus": (GpuIdentity(name="H200", uuid="GPU-1"),)},
    "deployments": {"deployments": (SelectedDeployment(name="d", digest="y", lane=Lane.FULL),)},
    "tier": {"tier": "full"},
    "narrowed": {"narrowed": ("only part of the checks ran: -k tpot",)},
}


@pytest.mark.parametrize("name", CHANGED)
def test_another_identity_is_refused_by_name(name: str, tmp_path: Path) -> None:
    Recorder(tmp_path).start(run(), **ASKED)
    resume.refuse_another(tmp_path, run(), run(time=5.0, host="other", python="3.14"), ASKED)
    with pytest.raises(InputError) as caught:
        resume.refuse_another(tmp_path, run(), run(**CHANGED[name]), ASKED)
    assert f"; {name}: recorded " in caught.value.happened
    assert caught.value.happened.count("recorded ") == 1
    assert f"pytest -n2 --resume={tmp_path}" in caught.value.hint


@pytest.mark.parametrize("name", ASKED)
def test_so_is_another_way_to_judge(name: str, tmp_path: Path) -> None:
    Recorder(tmp_path).start(run(), **ASKED)
    with pytest.raises(InputError, match=f"{name}: recorded"):
        resume.refuse_another(tmp_path, run(), run(), ASKED | {name: "other"})


def on_node(uuid: str, node: str = "node 0 (one)") -> GpuIdentity:
    return GpuIdentity(name="H200", uuid=uuid, index=0, node=node)


def test_other_gpus_of_the_same_cluster_end_the_session(tmp_path: Path) -> None:
    """They are known only once they are leased. Nothing is recorded against the deployment."""
    before = server("ready").model_copy(update={"gpus": (on_node("GPU-a"), on_node("GPU-b"))})
    recorder = Recorder(tmp_path)
    for record in (run(), before):
        recorder.write(record)
    config: Any = SimpleNamespace(
        stash={resume.RESUMED: resume.kept_of(read_results(tmp_path))},
        option=SimpleNamespace(resume=tmp_path),
    )
    resume.refuse_other_gpus(config, "d", [on_node("GPU-b", "node 0 (two)"), on_node("GPU-a")])
    resume.refuse_other_gpus(config, "another", [on_node("GPU-c")])
    with pytest.raises(pytest.exit.Exception) as ended:
        resume.refuse_other_gpus(config, "d", [on_node("GPU-a"), on_node("GPU-c", "node 1 (two)")])
    said = str(ended.value)
    assert "without node 0 (one) GPU 0 (GPU-b), with node 1 (two) GPU 0 (GPU-c)" in said
    assert f"d, --resume={tmp_path}" in said
    assert ended.value.returncode == pytest.ExitCode.USAGE_ERROR


def test_a_run_that_is_not_resumed_takes_any_gpus() -> None:
    fresh: Any = SimpleNamespace(stash={}, option=SimpleNamespace(resume=None))
    resume.refuse_other_gpus(fresh, "d", [on_node("GPU-c")])


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="there is nothing to resume"):
            resume.earlier(folder)
    (tmp_path / RESULTS).write_text("{}\n")
    with pytest.raises(InputError, match="there is nothing to resume"):
        resume.earlier(tmp_path)
    Recorder(tmp_path).write(run())
    with pytest.raises(InputError, match=r"run\.json"):
        resume.refuse_another(tmp_path, run(), run(), ASKED)


def test_earlier_reports_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text("first")
    resume.set_aside(tmp_path, 1)
    assert (tmp_path / "junit.session1.xml").read_text() == "first"
    resume.set_aside(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["junit.session1.xml"]


def test_workers_read_paths_that_exist_by_now() -> None:
    given = ["-n", "2", "--run-dir", "/x", "--deployment", "d", "--references", "r", "--resume=/y"]
    assert joined(given) == [
        *("-n", "2", "--run-dir=/x", "--deployment", "d", "--references=r", "--resume=/y")
    ]


class Item:
    """A test of one deployment, as resuming sees it."""

    def __init__(self, nodeid: str, *names: str, cell: str = "", area: str = "memory") -> None:
        self.nodeid, self.fixturenames, self.area = nodeid, names, area
        self.callspec = SimpleNamespace(params={"cell": cell} if cell else {})


@pytest.fixture
def items(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(resume, "deployment_of", lambda item: "d")
    monkeypatch.setattr(resume, "area_of", lambda item: item.area)
    monkeypatch.setattr(resume, "describe", lambda item: SimpleNamespace(nodeid=item.nodeid))
    monkeypatch.setattr(resume, "_load", lambda item: len(resume._cell(item)))
    return [
        Item("plain"),
        Item("a-b1", cell="a-b1"),
        Item("a-b1 again", cell="a-b1"),
        Item("a-b512", cell="a-b512"),
        Item("grows", "server", "loaded"),
        Item("ends", area="resilience"),
        Item("starts anew", area="resilience"),
        Item("in its place", "after_server"),
    ]


@pytest.mark.parametrize(
    ("unfinished", "again"),
    [
        ([], []),
        (["plain"], ["plain"]),
        # A cell is measured once for all of its tests, so a broken-off one is measured again.
        (["a-b1"], ["a-b1", "a-b1 again"]),
        # What looks back on the load needs one, on the server that is there now.
        (["grows"], ["a-b512", "grows"]),
        (["grows", "a-b1 again"], ["a-b1", "a-b1 again", "grows"]),
        # The first ends the server that the second starts again.
        (["starts anew"], ["ends", "starts anew", "in its place"]),
        (["in its place"], ["ends", "starts anew", "in its place"]),
    ],
)
def test_what_belongs_together_is_run_together(
    items: list[Any], unfinished: list[str], again: list[str]
) -> None:
    kept = frozenset(item.nodeid for item in items if item.nodeid not in unfinished)
    chosen = resume._again(items, kept)
    assert [item.nodeid for item in items if item in chosen] == again
