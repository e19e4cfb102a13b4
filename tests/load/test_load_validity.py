"""Every validity rule trips on its defect alone, and holds on a healthy twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from load_fakes import BATCH, ISL, OSL, all_failed, counted, tool_json

from acceptance.judging.judgement import Kind, Limit
from acceptance.load.cellrun import NodeLog
from acceptance.load.counters import CACHE_HITS, GENERATED, SIMULATED_LATE, SUCCEEDED, Counters
from acceptance.load.engine import ClientLoad, LoadEngine
from acceptance.load.measurements import measurements
from acceptance.load.result import BenchResult
from acceptance.load.validity import RULES, check, jit_or_error_in_window, unobserved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from acceptance.load.cellrun import CellRun

TOKENS = BATCH * OSL


def told(run: CellRun) -> set[str]:
    return {broken.rule for broken in check(run)}


def with_result(run: CellRun, **changes: Any) -> CellRun:
    return run.model_copy(update={"result": BenchResult.model_validate(tool_json() | changes)})


def after(run: CellRun, counters: Counters) -> CellRun:
    return run.model_copy(update={"after": counters})


def logged(run: CellRun, text: str) -> CellRun:
    assert run.server_log is not None
    with run.server_log.open("a") as log:
        log.write(text + "\n")
    end = run.server_log.stat().st_size
    return run.model_copy(update={"log_span": (run.log_span[0], end)})


def without(counters: Counters, name: str) -> Counters:
    values = {key: value for key, value in counters.values.items() if key != name}
    return Counters(values=values, missing={name: "no such metric"})


def client(run: CellRun, **changes: float) -> CellRun:
    return run.model_copy(update={"client": run.client.model_copy(update=changes)})


def served(run: CellRun, ttft: float = 0.1, itl: float = 0.01) -> CellRun:
    """The server's own means, in seconds, of the whole time before and of the cell."""
    return run.model_copy(
        update={
            "before": counted(100, 10, ttft=ttft, itl=itl),
            "after": counted(100 + TOKENS, 10 + BATCH, ttft=ttft, itl=itl),
        }
    )


def simulated(run: CellRun, late: float) -> CellRun:
    """On a simulated server that sent each first token so late, in seconds."""

    def counts(counters: Counters, requests: float) -> Counters:
        own = {"sum": late * requests, "count": requests}
        values = {f"{SIMULATED_LATE}_{part}": {"0": value} for part, value in own.items()}
        return Counters(values=counters.values | values)

    update = {
        "lane": "simulated",
        "before": counts(run.before, 10),
        "after": counts(run.after, 10 + BATCH),
    }
    return run.model_copy(update=update)


def bounded(run: CellRun, **lowest: float) -> CellRun:
    limits = {
        name: Limit(kind=Kind.BOUND, lower=lower, unit="ms", source="physics")
        for name, lower in lowest.items()
    }
    return run.model_copy(update={"bounds": limits})


DEFECTS: list[tuple[set[str], Callable[[CellRun], CellRun]]] = [
    (
        {"requests-completed"},
        lambda run: after(
            with_result(run, completed=BATCH - 1), counted(100 + TOKENS, 10 + BATCH - 1)
        ),
    ),
    ({"requests-failed"}, lambda run: with_result(run, failed=1)),
    # One stream broke, and another gave as many tokens too many: the sum alone sees nothing.
    ({"output-length"}, lambda run: with_result(run, output_lens=[OSL, OSL - 3, OSL + 3, OSL])),
    ({"output-length"}, lambda run: with_result(run, output_lens=[OSL] * (BATCH - 1))),
    ({"input-tokens"}, lambda run: with_result(run, total_input_tokens=BATCH * (ISL - 3))),
    ({"input-tokens"}, lambda run: with_result(run, total_input_tokens=BATCH * (ISL + 3))),
    ({"metrics-missing"}, lambda run: after(run, without(run.after, CACHE_HITS))),
    (
        {"metrics-missing", "server-histograms"},
        lambda run: run.model_copy(update={"before": Counters()}),
    ),
    ({"prefix-cache-hits"}, lambda run: after(run, counted(100 + TOKENS, 10 + BATCH, hits=16))),
    # Somebody else's request, or tokens that the client does not know of.
    ({"server-token-count"}, lambda run: after(run, counted(104 + TOKENS, 10 + BATCH))),
    ({"server-token-count"}, lambda run: after(run, counted(100 + TOKENS, 11 + BATCH))),
    (
        {"engine-restarted", "server-token-count", "server-histograms"},
        lambda run: after(run, counted(TOKENS, BATCH)),
    ),
    (
        {"engine-restarted"},
        lambda run: after(
            run,
            Counters(
                values=run.after.values
                | {SUCCEEDED: {"0": 5 + BATCH / 2, "1": 5 + BATCH / 2, "2": 0.0}}
            ),
        ),
    ),
    (
        {"engine-starved"},
        lambda run: after(
            run,
            Counters(values=run.after.values | {GENERATED: {"0": 46 + TOKENS, "1": 54.0}}),
        ),
    ),
    (
        {"jit-or-error-in-window"},
        lambda run: logged(
            run,
            "(Worker_TP0 pid=9) WARNING 01-01 00:00:02 [jit_monitor.py:137] Triton kernel JIT "
            "compilation during inference: _moe_kernel. This causes a latency spike; consider "
            "extending warmup to cover this shape/config.",
        ),
    ),
    (
        {"jit-or-error-in-window"},
        lambda run: logged(run, "(EngineCore pid=2) ERROR 01-01 00:00:02 [core.py:1] bad"),
    ),
    (
        {"jit-or-error-in-window"},
        lambda run: logged(run, "ERROR:    Exception in ASGI application"),
    ),
    ({"jit-or-error-in-window"}, lambda run: logged(run, "Traceback (most recent call last):")),
    (
        {"jit-or-error-in-window"},
        lambda run: run.model_copy(update={"log_span": (run.log_span[0], 10**6)}),
    ),
    (
        {"warm-up-failed"},
        lambda run: run.model_copy(
            update={"warmup": run.warmup.model_copy(update={"failed": 1, "reason": "HTTP 500"})}
        ),
    ),
    ({"gpu-shared"}, lambda run: run.model_copy(update={"others": "GPU 0: pid 4711"})),
    ({"client-saturated"}, lambda run: client(run, cpu_share=0.95)),
    # The healthy cell times 100 ms to the first token and 70 ms of decoding.
    ({"client-saturated"}, lambda run: client(run, lag_p99_ms=8.0)),
    ({"server-histograms"}, lambda run: served(run, ttft=0.03)),
    ({"server-histograms"}, lambda run: served(run, ttft=0.12)),
    ({"server-histograms"}, lambda run: served(run, itl=0.008)),
    ({"server-histograms"}, lambda run: served(run, itl=0.012)),
    (
        {"server-histograms"},
        lambda run: after(run, without(run.after, "vllm:time_to_first_token_seconds_sum")),
    ),
    ({"simulation-late"}, lambda run: simulated(run, 0.0065)),  # of a TTFT of 100 ms
    ({"simulation-late"}, lambda run: run.model_copy(update={"lane": "simulated"})),
    ({"beyond-physics"}, lambda run: bounded(run, tpot_mean_ms=10.5)),
    ({"beyond-physics"}, lambda run: bounded(run, ttft_mean_ms=101)),
    (
        {"generated-tokens", "server-token-count"},
        lambda run: with_result(run, total_output_tokens=TOKENS - 1),
    ),
]


@pytest.mark.parametrize(("rules", "defect"), DEFECTS)
def test_a_defect_breaks_its_rules_and_no_other(
    healthy: CellRun, rules: set[str], defect: Callable[[CellRun], CellRun]
):
    assert told(healthy) == set()
    broken = defect(healthy)
    assert told(broken) == rules
    assert all(rule.evidence for rule in check(broken))
    for measurement in measurements([broken]).values():
        assert {rule.rule for rule in measurement.broken} == rules


def test_every_rule_has_a_defect():
    tripped = set().union(*(rules for rules, _ in DEFECTS))
    assert tripped == {rule.id for rule in RULES}


def test_all_requests_failed_is_invalid_although_the_tool_exits_0(healthy: CellRun):
    result = BenchResult.model_validate(all_failed())
    run = healthy.model_copy(update={"result": result, "after": healthy.before})
    assert told(run) == {
        *("requests-completed", "requests-failed"),
        *("output-length", "generated-tokens", "input-tokens"),
    }
    evidence = {broken.rule: broken.evidence for broken in check(run)}
    assert "Cannot connect to host" in evidence["requests-failed"]
    assert evidence["requests-completed"] == "0 of 4 requests completed"


def test_broken_stream_that_the_tool_counts_as_success_is_invalid(healthy: CellRun):
    changes = {"output_lens": [OSL, 1, OSL, OSL], "total_output_tokens": TOKENS - OSL + 1}
    run = with_result(healthy, **changes)
    assert (run.result.completed, run.result.failed) == (BATCH, 0)
    assert {"output-length", "generated-tokens"} <= told(run)


def test_a_simulation_may_be_a_little_late(healthy: CellRun):
    assert not told(simulated(healthy, 0.0055))


def test_prompts_a_token_or_two_off_are_valid(healthy: CellRun):
    for off in (-2, 2):
        assert not told(with_result(healthy, total_input_tokens=BATCH * (ISL + off)))


def test_errors_outside_the_window_do_not_count(healthy: CellRun):
    assert healthy.server_log is not None
    assert "ERROR" in healthy.server_log.read_text()  # before the window
    with healthy.server_log.open("a") as log:
        log.write("(EngineCore pid=2) ERROR 01-01 00:00:09 [core.py:1] after the window\n")
    assert not told(healthy)


def test_start_of_the_jit_monitor_is_not_a_compilation(healthy: CellRun):
    line = (
        "(Worker pid=9) INFO 01-01 00:00:02 [jit_monitor.py:86] Kernel JIT monitor activated; "
        "monitored JIT compilations during inference will use mode=warn."
    )
    assert not told(logged(healthy, line))


def test_starvation_is_judged_only_with_a_request_for_every_engine(healthy: CellRun):
    values = healthy.after.values | {GENERATED: {"0": 50.0 + TOKENS, "1": 50.0}}
    starved = after(healthy, Counters(values=values))
    assert told(starved) == {"engine-starved"}
    assert not told(starved.model_copy(update={"ranks": 1}))
    assert not told(starved.model_copy(update={"ranks": BATCH + 1}))
    hidden = {name: {"0": sum(engines.values())} for name, engines in healthy.after.values.items()}
    before = {name: {"0": sum(engines.values())} for name, engines in healthy.before.values.items()}
    run = healthy.model_copy(
        update={"before": Counters(values=before), "after": Counters(values=hidden)}
    )
    assert told(run) == {"engine-starved"}  # an engine that reports nothing may do nothing


def test_without_a_log_the_rule_is_unobserved_not_held(healthy: CellRun):
    assert unobserved(healthy) == ()
    attached = healthy.model_copy(update={"server_log": None, "log_span": (0, 0)})
    assert not told(attached)
    assert unobserved(attached) == ("jit-or-error-in-window",)
    evidence = measurements([attached])["ttft_mean_ms"].evidence
    assert evidence["unobserved_rules"] == ("jit-or-error-in-window",)


def test_an_error_on_another_node_breaks_the_rule_and_is_named(healthy: CellRun, tmp_path: Path):
    other = tmp_path / "node1.log"
    other.write_text("(EngineCore pid=3) ERROR 01-01 00:00:00 [core.py:1] before the window\n")
    start = other.stat().st_size

    def told() -> str:
        log = NodeLog(node=1, path=other, span=(start, other.stat().st_size))
        return jit_or_error_in_window(healthy.model_copy(update={"node_logs": (log,)}))

    assert not told()
    with other.open("a") as log:
        log.write("(EngineCore pid=3) ERROR 01-01 00:00:02 [core.py:9] NCCL is gone\n")
    assert told().startswith("node 1: 1 lines; the first: ")
    assert "NCCL is gone" in told()
    other.write_text("")
    lost = NodeLog(node=1, path=other, span=(0, 10))
    run = logged(healthy, "(EngineCore pid=2) ERROR 01-01 00:00:02 [core.py:1] bad")
    both = jit_or_error_in_window(run.model_copy(update={"node_logs": (lost,)}))
    assert both.startswith("1 lines; the first: ")
    assert both.endswith("; node 1: the server's log is shorter than it was: node1.log")


def test_a_log_that_vanished_is_broken(healthy: CellRun, tmp_path: Path):
    run = healthy.model_copy(update={"server_log": tmp_path / "gone.log"})
    assert told(run) == {"jit-or-error-in-window"}


def test_speed_rules_say_nothing_where_speed_is_not_judged(healthy: CellRun):
    slow = client(bounded(served(healthy, ttft=9.0), tpot_mean_ms=99), lag_p99_ms=500, cpu_share=1)
    assert told(slow) == {"client-saturated", "server-histograms", "beyond-physics"}
    assert not told(slow.model_copy(update={"speed_gated": False}))


def test_a_client_with_many_threads_may_use_more_than_a_core(healthy: CellRun):
    busy = client(healthy, cpu_share=3.0)
    assert told(busy) == {"client-saturated"}
    assert not told(busy.model_copy(update={"engine": LoadEngine.RUST}))


def test_a_client_that_could_not_be_observed_breaks_nothing(healthy: CellRun):
    unseen = healthy.model_copy(update={"client": ClientLoad()})
    assert not told(unseen)


def test_a_value_at_its_bound_is_possible(healthy: CellRun):
    assert not told(bounded(healthy, tpot_mean_ms=10.0, ttft_mean_ms=100.0, tpot_median_ms=9.0))
