"""A start ends in a server that generates, or in one error that says why it did not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving_world import fake_deployment, start, started_for, told_apart

from acceptance.errors import ServerError
from acceptance.serving.readiness import failure

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

    from acceptance.serving.readiness import Progress
    from acceptance.serving.server import Server


def failing(run_dir: Path, *faults: str, name: str = "rehearsal-tp-ep", **budgets: Any) -> str:
    """Starts a server that must fail, checks what every such error has, and returns its text."""
    watched: list[psutil.Process] = []

    def watch(_: Progress) -> None:
        watched.extend(started_for(run_dir))

    with pytest.raises(ServerError) as caught:
        start(run_dir, *faults, deployment=fake_deployment(name, **budgets), tell=watch)
    error = caught.value
    assert error.happened.startswith(f"{name} ")
    assert "vllm serve made-up --trust-remote-code" in error.asked
    assert error.log == run_dir / "servers" / f"{name}.benchmark.log"
    assert error.log.exists()
    assert error.cause
    assert error.hint
    assert watched
    assert told_apart(watched) == []
    return f"{error.happened} | {error.cause} | {error.hint}"


def test_a_death_while_loading_names_the_first_exception(tmp_path: Path) -> None:
    said = failing(tmp_path, "die-in-load")
    assert "ended with exit code 1 while " in said
    assert "| KeyError: 'layers.1.mlp.gate.e_score_correction_bias' in load_weights" in said
    assert "See root cause above" not in said


def test_an_exit_with_0_is_a_failure(tmp_path: Path) -> None:
    said = failing(tmp_path, "exit-0-in-start")
    assert "ended with exit code 0 while " in said


def test_a_silent_start_is_told_after_the_silence_budget(tmp_path: Path) -> None:
    said = failing(tmp_path, "silent-start", silence=1.5)
    assert "was silent for 2 s while launching: no log line, no CPU time" in said
    assert "Resolved architecture" in said


@pytest.mark.parametrize("fault", ["spin", "compiles"])
def test_a_start_that_only_computes_is_busy_not_silent(tmp_path: Path, fault: str) -> None:
    """In one process, or in many that are each over at once."""
    said = failing(tmp_path, fault, silence=1, start=3)
    assert "was not ready after 3 s, still launching: busy, with no log line for" in said
    assert "py-spy" in said


def test_a_start_that_progresses_too_slowly_is_late_not_silent(tmp_path: Path) -> None:
    said = failing(tmp_path, "slow-but-alive", silence=1.5, start=2)
    assert "was not ready after 2 s, still launching |" in said
    assert "raise budgets.start" in said


def test_a_slow_start_is_waited_for_and_told(serving: Callable[..., Server]) -> None:
    """It takes longer than the silence budget. Its phases come in their order, are told while
    they last, and their seconds add up."""
    told: list[Progress] = []
    patient = fake_deployment(silence=1.5)
    startup = serving("slow-but-alive", deployment=patient, tell=told.append).startup
    assert startup.ready > patient.budgets.silence
    assert list(startup.phases)[:2] == ["importing", "launching"]
    assert list(startup.phases)[-1] == "warming"
    assert sum(startup.phases.values()) == pytest.approx(startup.ready)
    assert startup.facts.architecture == "DeepseekV3ForCausalLM"
    assert startup.facts.total_kv_tokens == 2048
    assert {progress.deployment for progress in told} == {"rehearsal-tp-ep"}
    assert "launching" in {progress.phase for progress in told}
    assert any("still at it" in progress.line for progress in told)
    seconds = [progress.seconds for progress in told]
    assert seconds == sorted(seconds)


def test_output_without_a_newline_is_life(serving: Callable[..., Server]) -> None:
    patient = fake_deployment(silence=1.5)
    assert serving("dots", deployment=patient).startup.ready > patient.budgets.silence


def test_health_is_not_enough(tmp_path: Path) -> None:
    said = failing(tmp_path, "health-200-but-generation-500")
    assert "answered /health with 200, but: no generation: HTTP 500" in said
    assert "| NotImplementedError in all_gatherv (deepseek_v2.py:1820)" in said


def test_a_first_generation_that_hangs_is_a_failure(tmp_path: Path) -> None:
    """Each engine is asked, so one of two that hangs is found."""
    said = failing(tmp_path, "one-engine-hangs", name="rehearsal-dp-ep", request=1)
    assert "answered /health with 200, but: no generation: ReadTimeout" in said


def test_a_server_that_asks_for_no_key_is_not_ours(tmp_path: Path) -> None:
    said = failing(tmp_path, "wrong-server")
    assert "does not ask for its key | the key: HTTP 200, no key: HTTP 200" in said
    assert "another server may own the port" in said


def test_every_engine_is_asked_for_the_first_tokens(serving: Callable[..., Server]) -> None:
    server = serving(deployment=fake_deployment("rehearsal-dp-ep"))
    assert server.custody is not None
    assert len(server.custody.processes()) == 5
    assert server.startup.facts.kv_cache_tokens == {"EngineCore_DP0": 2048, "EngineCore_DP1": 2048}


@pytest.mark.parametrize("faults", [("die-in-load", "key-in-log"), ("wrong-server", "key-in-log")])
def test_errors_and_the_log_are_free_of_the_key(tmp_path: Path, faults: tuple[str, ...]) -> None:
    """Though the server wrote it into its log, and into the exception that ended it."""
    known: list[str] = []

    def note(_: Progress) -> None:
        for process in started_for(tmp_path):
            known.append(process.environ().get("VLLM_API_KEY", ""))

    with pytest.raises(ServerError) as caught:
        start(tmp_path, *faults, tell=note)
    [key] = {key for key in known if key}
    assert key not in f"{caught.value}{caught.value!r}"
    log = Path(str(caught.value.log)).read_text()
    assert key not in log
    assert f"'api_key': '{'*' * len(key)}'" in log


def test_a_given_cause_is_kept(serving: Callable[..., Server]) -> None:
    server = serving()
    error = failure(server, f"said {server.api_key}", hint=server.api_key, cause="because")
    assert error.cause == "because"
    assert server.api_key not in str(error)
    assert "no exception in the log" in failure(server, "stopped").cause
