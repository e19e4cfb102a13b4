"""The plugin in a real pytest: what ends up on disk, on the terminal and in the exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path

import pytest
from reports_schema import problems

from acceptance.judging.verdict import Verdict
from reports.reading import read_results
from reports.ruling import verdict_of
from reports.schema import EndRecord, TestRecord
from reports.verify import verify

ROOT = Path(__file__).parents[2]
SECRET = "quiet-0123456789abcdef"

OWNER = f"""
    import pytest, time
    from pathlib import Path
    from acceptance.deployments.schema import Lane
    from acceptance.errors import ServerError
    from acceptance.judging.judge import judge as judge_one
    from acceptance.judging.judgement import Kind, Limit, Measurement, Outcome
    from acceptance.secrets import Redactor
    from reports.checks import JudgementFailed, describe, judgement_record
    from reports.plugin import RUN_KEY, RunContext, prepare
    from reports.recorder import Recorder
    from reports.schema import RunRecord, SelectedDeployment

    def pytest_addoption(parser):
        parser.addoption("--lane", default="rehearsal")
        parser.addoption("--names", default="d-tp-ep")
        parser.addoption("--no-run", action="store_true")

    def pytest_configure(config):
        if config.option.no_run:
            return
        worker = hasattr(config, "workerinput")
        recorder = Recorder(Path("run").resolve(), Redactor(["{SECRET}"]))
        lanes = {{name: Lane(config.option.lane) for name in config.option.names.split(",")}}
        config.stash[RUN_KEY] = RunContext(recorder.run_dir, recorder, lanes)
        if not worker:
            chosen = [SelectedDeployment(name=n, digest="x", lane=l) for n, l in lanes.items()]
            recorder.start(RunRecord(time=time.time(), suite_version="1", deployments=chosen))
        prepare(config)

    def pytest_generate_tests(metafunc):
        if "deployment" in metafunc.fixturenames:
            names = metafunc.config.option.names.split(",")
            marks = [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in names]
            metafunc.parametrize("deployment", marks)

    @pytest.fixture
    def judge(request):
        def judging(value, required=True, upper=2.0, name="tpot_mean_ms"):
            limit = None if upper is None else Limit(
                kind=Kind.CEILING, upper=upper, unit="ms", source="somewhere")
            one = judge_one(Measurement(name=name, value=value, unit="ms"), limit,
                            required=required)
            recorder = request.config.stash[RUN_KEY].recorder
            recorder.write(judgement_record(describe(request.node), one))
            if required and one.outcome in (Outcome.FAIL, Outcome.INVALID):
                raise JudgementFailed(one)
        return judging
"""

HOLDS = """
    def test_speed(deployment, judge):
        '''Mean TPOT holds its reference.'''
        judge(1.0)
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs tests under the plugin and gives pytest's result and the run's directory."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(owner=OWNER)
    pytester.makeconftest('pytest_plugins = ["owner", "reports.plugin"]')

    def running(tests: str, *args: str):
        pytester.makepyfile(test_it=tests)
        plugins = ("-p", "no:cacheprovider", "-p", "no:schemathesis")
        result = pytester.runpytest_subprocess(*plugins, *args)
        run_dir = pytester.path / "run"
        if (run_dir / "results.jsonl").exists():  # whatever happened, every line fits
            assert problems((run_dir / "results.jsonl").read_text().splitlines()) == []
        return result, run_dir

    return running


def test_without_a_run_the_plugin_does_nothing(run):
    result, run_dir = run("def test_a(): pass", "--no-run")
    assert result.ret == 0
    assert not run_dir.exists()
    result.stdout.no_fnmatch_line("*acceptance.html*")


def test_rehearsal_that_holds(run):
    result, run_dir = run(HOLDS, "--summary=told.md")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*REHEARSED  d-tp-ep 1 passed, 0 failed", f"report  {run_dir / 'acceptance.html'}"],
        consecutive=True,
    )
    assert result.outlines[-1] == f"report  {run_dir / 'acceptance.html'}"
    html = (run_dir / "acceptance.html").read_text()
    assert "REHEARSED (rehearsal lane)" in html
    assert "ACCEPTED" not in html
    assert "ACCEPTED" not in result.stdout.str()
    assert "tiny checkpoint" in html
    assert "Mean TPOT holds its reference." in html
    cases = list(ElementTree.parse(run_dir / "junit.xml").iter("testcase"))
    properties = {p.get("name"): p.get("value") for p in cases[0].iter("property")}
    assert properties["deployment"] == "d-tp-ep"
    assert properties["lane"] == "rehearsal"
    suite = ElementTree.parse(run_dir / "junit.xml").find("testsuite/properties")
    assert {p.get("name"): p.get("value") for p in suite}["verdict"] == "REHEARSED"
    assert verify(run_dir)[0] == []
    assert "acceptance_held" in (run_dir / "metrics.prom").read_text()
    assert (run_dir.parent / "told.md").read_text().startswith("## REHEARSED (rehearsal lane)")
    assert "1 passed and 0 were skipped" in html
    assert verdict_of(read_results(run_dir)).word == "REHEARSED"


def test_full_lane_that_holds(run):
    result, run_dir = run(HOLDS, "--lane", "full")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["ACCEPTED  d-tp-ep 1 passed, 0 failed"])
    html = (run_dir / "acceptance.html").read_text()
    assert '<h1 id="title">ACCEPTED · DeepSeek' in html
    assert "lane)" not in html.partition("results-table")[0].partition("<h1")[2]


def test_report_fetches_nothing(run):
    _, run_dir = run(HOLDS)
    html = (run_dir / "acceptance.html").read_text()
    for fetching in ("<link", "@import", "url(", 'src="http', "src='http", "<iframe"):
        assert fetching not in html


def test_failed_limit_names_value_limit_and_source(run):
    result, run_dir = run(HOLDS.replace("1.0", "3.5"))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*what went wrong*",
            "d-tp-ep: limit not held: test_speed · tpot_mean_ms",
            "  3.5 ms, at most 2 ms",
            "REJECTED  d-tp-ep 0 passed, 1 failed",
        ]
    )
    verdict = verdict_of(read_results(run_dir))
    assert verdict.verdict is Verdict.REJECTED
    assert len(verdict.reasons) == 1
    html = (run_dir / "acceptance.html").read_text()
    for told in ("REJECTED", "3.5 ms, at most 2 ms", "somewhere", "−75.0 %"):
        assert told in html


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("judge(float('nan'))", "missing"),
        ("judge(1.0); judge(1.0, upper=None, name='ttft')", "ttft without a reference"),
        ("judge(1.0); import pytest; pytest.skip('cannot be seen')", None),
        ("pass", "nothing was judged"),
    ],
)
def test_what_is_not_judged_is_incomplete_and_not_zero(run, body, told):
    result, run_dir = run(f"def test_a(deployment, judge): {body}")
    verdict = verdict_of(read_results(run_dir))
    if told is None:  # skipped after a judgement that says what it was worth
        assert verdict.accepted
        return
    assert result.ret == 1
    assert verdict.verdict is Verdict.INCOMPLETE
    assert told in "\n".join(verdict.reasons)
    result.stdout.fnmatch_lines(["INCOMPLETE  d-tp-ep *"])


def test_skipped_test_is_incomplete_and_says_why(run):
    result, run_dir = run(
        HOLDS + "\n    def test_b(deployment):\n"
        "        import pytest; pytest.skip('the log is not ours')"
    )
    assert result.ret == 1
    assert "the log is not ours" in "\n".join(verdict_of(read_results(run_dir)).reasons)


def test_nothing_collected_is_incomplete(run):
    result, run_dir = run("")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert verdict_of(read_results(run_dir)).verdict is Verdict.INCOMPLETE
    assert "INCOMPLETE" in (run_dir / "acceptance.html").read_text()


def test_file_that_cannot_be_collected_is_no_silence(run):
    result, run_dir = run("import nowhere_to_be_found")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    verdict = verdict_of(read_results(run_dir))
    assert verdict.verdict is Verdict.REJECTED
    assert "nowhere_to_be_found" in verdict.reasons[0]


def test_test_that_breaks_rejects_with_its_cause(run):
    result, run_dir = run(HOLDS + "\n    def test_b(deployment): {}['usage']")
    assert result.ret == 1
    assert verdict_of(read_results(run_dir)).reasons == (
        "d-tp-ep: test_b broke: KeyError: 'usage'",
    )


def test_server_error_tells_cause_log_and_hint(run):
    result, run_dir = run(
        HOLDS
        + """
    def test_b(deployment):
        from acceptance.errors import ServerError
        raise ServerError("did not start", cause="CUDA OOM", log="/logs/d.log", hint="less KV")
    """
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  CUDA OOM", "  log: /logs/d.log", "  try: less KV"])
    html = (run_dir / "acceptance.html").read_text()
    assert "<code>CUDA OOM</code>" in html
    assert "less KV" in html


def test_secrets_reach_no_report(run):
    result, run_dir = run(
        HOLDS
        + f"""
    def test_b(deployment):
        print("captured {SECRET}")
        headers = {{"Authorization": "Token {SECRET}"}}
        assert headers == {{}}
    def test_c(deployment):
        import pytest
        pytest.skip("{SECRET}")
    """
    )
    assert result.ret == 1
    for file in run_dir.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in result.stdout.str()
    assert "[secret]" in (run_dir / "acceptance.html").read_text()


def test_hostile_text_is_inert(run):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    _, run_dir = run(
        f"""
    import pytest
    @pytest.mark.parametrize("word", [{evil!r}])
    def test_a(deployment, word, judge):
        '''{evil}'''
        print({evil!r}, chr(0x202e), chr(27) + "[31mred")
        judge(word)
    """
    )
    html = (run_dir / "acceptance.html").read_text()
    data = html.partition('data-jsonblob="')[2].partition('"')[0]
    body = html.replace(data, "").partition("<body>")[2]
    assert "<img src=x" not in body
    assert "<script>alert" not in body
    assert "\u202e" not in html
    rows = json.loads(unescape(data))["tests"]
    for tests in rows.values():
        for test in tests:
            written = "".join(test["resultsTableRow"]) + test["log"]
            assert "<img" not in written
            assert "<script" not in written
            assert "\x1b" not in written


def test_workers_share_one_record(run):
    result, run_dir = run(
        HOLDS + "\n    def test_b(deployment, judge): judge(1.0)\n"
        "    def test_c(deployment): assert deployment != 'b-dp-ep', 'wrong layout'",
        "-n2",
        "--dist=loadgroup",
        "--names=a-tp-ep,b-dp-ep",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "PASSED  a-tp-ep 2 passed, 0 failed",
            "REJECTED  b-dp-ep 2 passed, 0 failed, 1 errors",
            "REJECTED  the whole run",
        ]
    )
    results = read_results(run_dir)
    assert results.problems == ()
    assert sum(isinstance(record, EndRecord) for record in results.records) == 1
    tests = [record for record in results.records if isinstance(record, TestRecord)]
    assert len(tests) == 6
    assert {t.check.deployment for t in tests} == {"a-tp-ep", "b-dp-ep"}
    assert not any("@" in t.check.nodeid for t in tests)
    assert "wrong layout" in (run_dir / "acceptance.html").read_text()
    assert len(list(ElementTree.parse(run_dir / "junit.xml").iter("testcase"))) == 6


def test_worker_that_dies_rejects(run):
    result, run_dir = run(
        HOLDS + "\n    def test_b(deployment):\n        import os; os.kill(os.getpid(), 9)",
        "-n1",
        "--max-worker-restart=0",
    )
    assert result.ret != 0
    verdict = verdict_of(read_results(run_dir))
    assert verdict.verdict is Verdict.REJECTED
    assert "d-tp-ep: test_b" in verdict.reasons[0]
    assert "crashed" in verdict.reasons[0]


def test_stopping_early_is_incomplete(run):
    result, run_dir = run(
        "def test_a(deployment, judge): judge(float('nan'))\n" + "def test_b(deployment): pass",
        "-x",
    )
    assert result.ret != 0
    (end,) = [r for r in read_results(run_dir).records if isinstance(r, EndRecord)]
    assert not end.finished
    assert end.word == "INCOMPLETE"


def test_users_own_report_paths_get_a_copy(run, pytester):
    result, run_dir = run(HOLDS, "--html=mine/r.html", "--junit-xml=mine/j.xml")
    assert result.ret == 0
    for name, own in (("r.html", "acceptance.html"), ("j.xml", "junit.xml")):
        assert (pytester.path / "mine" / name).read_bytes() == (run_dir / own).read_bytes()


def test_report_exists_even_where_pytest_html_is_blocked(run):
    result, run_dir = run(HOLDS, "-p", "no:html")
    assert result.ret == 0
    assert "REHEARSED" in (run_dir / "acceptance.html").read_text()


def test_killed_run_is_incomplete_and_can_be_read(run, pytester):
    pytester.makepyfile(
        test_it=HOLDS + "\n    def test_b(deployment):\n        import time; time.sleep(600)"
    )
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    child = subprocess.Popen(words, cwd=pytester.path, stdout=subprocess.DEVNULL)
    run_dir = pytester.path / "run"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(isinstance(r, TestRecord) for r in read_results(run_dir).records):
            break
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)

    told = subprocess.run(
        [sys.executable, "-m", "reports", str(run_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 1
    assert "the run did not reach its end" in told.stdout
    assert "INCOMPLETE  d-tp-ep 1 passed, 0 failed" in told.stdout
    assert "INCOMPLETE" in (run_dir / "acceptance.html").read_text()
