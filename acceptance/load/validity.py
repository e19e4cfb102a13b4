"""Whether a cell may be judged at all: rules, each with an id and its evidence.

A broken rule makes every measurement of the cell INVALID, whatever its numbers. The tool itself is
no judge: it exits 0 when every request failed, and counts a stream that broke after its first
token as a success.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.judging.judgement import Broken
from acceptance.load.counters import CACHE_HITS, NEEDED, SUCCEEDED
from acceptance.load.honesty import (
    beyond_physics,
    client_saturated,
    server_histograms,
    simulation_late,
)
from acceptance.serving.log import read_lines
from acceptance.serving.metrics import GENERATED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from acceptance.load.cellrun import CellRun
    from acceptance.serving.line import LogLine

INPUT_TOLERANCE = 0.02
INPUT_SLACK = 2  # tokens a request: text to tokens is not the inverse of tokens to text
ENGINE_SHARE = 0.5  # of a fair share of the generated tokens; below it an engine is starved

JIT = re.compile(r"\b(JIT compil|autotun)\w*.* during inference:", re.IGNORECASE)
TRACEBACK = "Traceback (most recent call last)"
ERRORS = ("ERROR", "CRITICAL", "FATAL")


@dataclass(frozen=True)
class Rule:
    """evidence: what breaks the rule, for a person; empty when it holds. needs_log: whether it
    can be observed only on a server whose log is here. of_speed: whether it guards nothing but
    speed, and so says nothing where speed is not judged."""

    id: str
    evidence: Callable[[CellRun], str]
    needs_log: bool = False
    of_speed: bool = False


def requests_completed(run: CellRun) -> str:
    """The client saw every request that was asked for through to its end."""
    done, asked = run.result.completed, run.cell.batch
    return "" if done == asked else f"{done} of {asked} requests completed"


def requests_failed(run: CellRun) -> str:
    """No request failed."""
    if run.result.failed == 0:
        return ""
    first = next((error for error in run.result.errors if error), "no reason given")
    reason = first.strip().splitlines()[-1][:300]
    return f"{run.result.failed} requests failed; the first: {reason}"


def output_length(run: CellRun) -> str:
    """Every request generated exactly what was asked: a broken stream is a short one."""
    asked, lengths = run.cell.osl, run.result.output_lens
    if len(lengths) != run.cell.batch:
        return f"{len(lengths)} output lengths for {run.cell.batch} requests"
    wrong = [f"request {i}: {length}" for i, length in enumerate(lengths) if length != asked]
    if not wrong:
        return ""
    return f"{len(wrong)} of {len(lengths)} not of {asked} tokens; {', '.join(wrong[:5])}"


def generated_tokens(run: CellRun) -> str:
    """All requests together generated batch x output length."""
    got, asked = run.result.total_output_tokens, run.cell.output_tokens
    return "" if got == asked else f"{got} tokens generated, {asked} asked"


def input_tokens(run: CellRun) -> str:
    """The prompts hold what was asked, to 2 % or two tokens a request."""
    got, asked = run.result.total_input_tokens, run.cell.input_tokens
    allowed = max(INPUT_TOLERANCE * asked, INPUT_SLACK * run.cell.batch)
    off = abs(got - asked)
    return "" if off <= allowed else f"{got} input tokens, {asked} asked, {allowed:.0f} off allowed"


def metrics_missing(run: CellRun) -> str:
    """The server's counts were read before and after."""
    gaps = [
        f"{name} {when}: {counters.missing.get(name, 'absent')}"
        for when, counters in (("before", run.before), ("after", run.after))
        for name in NEEDED
        if name not in counters.values
    ]
    return "; ".join(gaps)


def prefix_cache_hits(run: CellRun) -> str:
    """No prompt token came from the prefix cache."""
    hits = sum((run.growth(CACHE_HITS) or {}).values())
    return f"{hits:.0f} prompt tokens came from the prefix cache" if hits > 0 else ""


def server_token_count(run: CellRun) -> str:
    """The server generated and finished exactly what the client received. More means that
    somebody else used the server, less that the client counts wrongly."""
    wrong = []
    for name, told in (
        (GENERATED, run.result.total_output_tokens),
        (SUCCEEDED, run.result.completed),
    ):
        grown = run.growth(name)
        if grown is not None and sum(grown.values()) != told:
            wrong.append(f"{name} grew by {sum(grown.values()):.0f}, the client counts {told}")
    return "; ".join(wrong)


def engine_restarted(run: CellRun) -> str:
    """The same engines served from begin to end: no count fell, none came or went."""
    seen = []
    for name in (GENERATED, SUCCEEDED):
        grown = run.growth(name)
        if grown is None:
            continue
        before, after = set(run.before.values[name]), set(run.after.values[name])
        if before != after:
            seen.append(f"engines {sorted(before)} before, {sorted(after)} after")
        seen += [f"{name} of engine {e} fell by {-n:.0f}" for e, n in grown.items() if n < 0]
    return "; ".join(dict.fromkeys(seen))


def engine_starved(run: CellRun) -> str:
    """With at least one request for each data-parallel engine, each did a good part of its fair
    share of the generated tokens."""
    grown = run.growth(GENERATED)
    if run.ranks < 2 or run.cell.batch < run.ranks or grown is None:
        return ""
    if len(grown) < run.ranks:
        return f"{len(grown)} of {run.ranks} engines report generated tokens"
    total = sum(grown.values())
    floor = ENGINE_SHARE / run.ranks
    starved = [
        f"engine {engine} {tokens / total:.1%}"
        for engine, tokens in grown.items()
        if total > 0 and tokens / total < floor
    ]
    return f"below {floor:.1%} of the tokens: {', '.join(starved)}" if starved else ""


def jit_or_error_in_window(run: CellRun) -> str:
    """Nothing was compiled and no error logged on any node while the cell was measured."""
    if run.server_log is None:
        return ""
    told = [_stained(run.server_log, run.log_span, "")]
    told += [_stained(log.path, log.span, f"node {log.node}: ") for log in run.node_logs]
    return "; ".join(filter(None, told))


def _stained(log: Path, span: tuple[int, int], node: str) -> str:
    try:
        if log.stat().st_size < span[1]:
            return f"{node}the server's log is shorter than it was: {log.name}"
        found = [str(line) for line in read_lines(log, *span) if _stains(line)]
    except OSError as error:
        return f"{node}the server's log cannot be read: {error.strerror}"
    return f"{node}{len(found)} lines; the first: {found[0][:300]}" if found else ""


def _stains(line: LogLine) -> bool:
    return line.level in ERRORS or TRACEBACK in line.text or bool(JIT.search(line.text))


def gpu_shared(run: CellRun) -> str:
    """Nobody else was on the server's GPUs while the cell was measured: the host's doing, and no
    number of the server's."""
    return f"host: {run.others}" if run.others else ""


def warm_up_failed(run: CellRun) -> str:
    """Warm-up requests were answered."""
    failed, asked = run.warmup.failed, run.warmup.requests
    return f"{failed} of {asked} warm-up requests failed: {run.warmup.reason}" if failed else ""


RULES = (
    Rule(id="requests-completed", evidence=requests_completed),
    Rule(id="requests-failed", evidence=requests_failed),
    Rule(id="output-length", evidence=output_length),
    Rule(id="generated-tokens", evidence=generated_tokens),
    Rule(id="input-tokens", evidence=input_tokens),
    Rule(id="metrics-missing", evidence=metrics_missing),
    Rule(id="prefix-cache-hits", evidence=prefix_cache_hits),
    Rule(id="server-token-count", evidence=server_token_count),
    Rule(id="engine-restarted", evidence=engine_restarted),
    Rule(id="engine-starved", evidence=engine_starved),
    Rule(id="jit-or-error-in-window", evidence=jit_or_error_in_window, needs_log=True),
    Rule(id="warm-up-failed", evidence=warm_up_failed),
    Rule(id="gpu-shared", evidence=gpu_shared),
    Rule(id="client-saturated", evidence=client_saturated, of_speed=True),
    Rule(id="server-histograms", evidence=server_histograms, of_speed=True),
    Rule(id="simulation-late", evidence=simulation_late, of_speed=True),
    Rule(id="beyond-physics", evidence=beyond_physics, of_speed=True),
)


def check(run: CellRun) -> tuple[Broken, ...]:
    """The rules a cell breaks, in the table's order; none means that it may be judged."""
    asked = (rule for rule in RULES if run.speed_gated or not rule.of_speed)
    told = ((rule.id, rule.evidence(run)) for rule in asked)
    return tuple(Broken(rule=rule, evidence=evidence) for rule, evidence in told if evidence)


def unobserved(run: CellRun) -> tuple[str, ...]:
    """The rules that could not be looked at: those on the log of a server that is not ours."""
    return tuple(rule.id for rule in RULES if rule.needs_log and run.server_log is None)
