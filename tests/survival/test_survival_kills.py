"""A seeded sample of the kill matrix; tests/survival/kill_matrix.py is all of it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from survival_kills import ROWS, Found, break_off
from survival_world import ALONE, BESIDE

from reports.reading import read_results
from reports.ruling import last_end, verdict_of

if TYPE_CHECKING:
    from survival_world import World

# Lines of an unbroken run's record; a moment after the end is a kill of nobody.
LINES = {ALONE: 36, BESIDE: 71}
SAMPLE = {
    "pytest: SIGKILL": 3,
    "pytest: SIGINT twice": 5,
    "warden: SIGKILL": 2,
    "xdist worker: SIGKILL": 1,
}


@pytest.fixture(scope="module")
def trials(world: World) -> dict[str, Found]:
    """All at once: they mostly wait, and several runs on one host are tried by it, too."""
    rows = {row.name: row for row in ROWS if row.name in SAMPLE}
    with ThreadPoolExecutor(len(rows)) as pool:
        found = {
            name: pool.submit(break_off, world, row, LINES[row.words], random.Random(SAMPLE[name]))
            for name, row in rows.items()
        }
        return {name: future.result() for name, future in found.items()}


@pytest.mark.parametrize("name", SAMPLE)
def test_nothing_is_left_and_the_run_goes_on(trials: dict[str, Found], name: str) -> None:
    """No process, port, lock or memory; every judgement that was said is on disk; the resumed run
    ends with the verdict of an unbroken one, and measures no finished cell again."""
    found = trials[name]
    assert found.wrong == []
    assert found.resumed == "SIMULATED"


INTERRUPTED = """
import time
from pathlib import Path

import pytest
from acceptance.deployments.schema import Lane
from acceptance.judging.judgement import Judgement, Measurement, Outcome
from reports.checks import describe, judgement_record
from reports.plugin import RUN_KEY, RunContext, prepare
from reports.recorder import Recorder
from reports.schema import RunRecord, SelectedDeployment

def pytest_configure(config):
    recorder = Recorder(Path("run").resolve())
    config.stash[RUN_KEY] = RunContext(recorder.run_dir, recorder, {"d": Lane.FULL})
    chosen = [SelectedDeployment(name="d", digest="x", lane=Lane.FULL)]
    recorder.start(RunRecord(time=time.time(), suite_version="1", deployments=chosen))
    prepare(config)

@pytest.fixture(params=["d"])
def deployment(request):
    held = Judgement(outcome=Outcome.PASS, measurement=Measurement(name="m", value=1.0))
    yield
    recorder = request.config.stash[RUN_KEY].recorder
    recorder.write(judgement_record(describe(request.node), held))

def pytest_keyboard_interrupt(excinfo):
    raise KeyboardInterrupt  # the second one, while pytest deals with the first
"""


def test_interrupted_twice_is_no_whole_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then pytest tells of exit status 0, and every judgement so far held its limit."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makeconftest('pytest_plugins = ["owner", "reports.plugin"]')
    pytester.makepyfile(owner=INTERRUPTED)
    pytester.makepyfile("def test_a(deployment): pass\ndef test_b(): raise KeyboardInterrupt")
    pytester.runpytest_subprocess("-p", "no:cacheprovider")
    results = read_results(pytester.path / "run")
    end = last_end(results.records)
    assert end is not None
    assert not end.finished
    assert verdict_of(results).word == "INCOMPLETE"
