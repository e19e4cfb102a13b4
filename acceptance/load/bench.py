"""One cell through vLLM's own client, `vllm bench serve`, as a supervised process."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
import uuid
from typing import TYPE_CHECKING

import httpx

from acceptance.errors import ObservationError, ServerError
from acceptance.load.cellrun import CellRun, measured_window
from acceptance.load.counters import settled_counters
from acceptance.load.goodput import SERVER
from acceptance.load.pace import deadline_seconds
from acceptance.load.result import read_result
from acceptance.load.warmup import WarmRule, warm_up
from acceptance.serving.custody import Custody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

POLL = 0.5  # seconds between looks at client and server
CLIENT_GRACE = 2.0  # seconds from SIGTERM to SIGKILL for a client that is ended
RUST_CLIENT = "VLLM_USE_RUST_BENCH"  # would swap the measuring instrument unseen


def command(target: Target, cell: Cell, result_file: Path) -> tuple[str, ...]:
    """The client's command line for a cell. Raises ObservationError when no vLLM is installed.

    It is the recipe's command, with what makes it repeatable and readable by machine. Sampling is
    left to the model's generation_config, as in the recipe. The ready check is off by name,
    because it sends the first measured request (older versions have it on).
    """
    if target.vllm is None:
        raise ObservationError(
            "no vLLM is installed here to put load on the server",
            asked=f"vllm bench serve for {cell.id} of {cell.deployment}",
            hint="install the server's vLLM version in this environment",
        )
    # What the tool's JSON leaves out.
    metadata = {
        "deployment": cell.deployment,
        "cell": cell.id,
        "dataset": "random",
        "asked_input_len": cell.isl,
        "asked_output_len": cell.osl,
        "seed": cell.seed,
        "temperature": "not sent",
        "client_version": target.vllm.version,
    }
    return (
        *(*target.vllm.argv, "bench", "serve"),
        *("--backend", "vllm"),
        *("--base-url", target.base_url),
        *("--model", target.model),
        *("--tokenizer", target.model_path),
        *("--dataset-name", "random"),
        *("--random-input-len", str(cell.isl)),
        *("--random-output-len", str(cell.osl)),
        *("--request-rate", "10000"),
        *("--num-prompts", str(cell.batch)),
        "--ignore-eos",
        *("--seed", str(cell.seed)),
        *("--ready-check-timeout-sec", "0"),
        *("--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--metric-percentiles", "99"),
        *("--goodput", f"ttft:{SERVER.ttft_ms:g}", f"tpot:{SERVER.tpot_ms:g}"),
        *("--save-result", "--save-detailed"),
        *("--result-dir", str(result_file.parent)),
        *("--result-filename", result_file.name),
        *("--metadata", *(f"{key}={value}" for key, value in metadata.items())),
    )


def environment(target: Target, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The client's whole environment: ours (or base), the target's additions, and the key.

    A key of ours for somewhere else is not passed on, and a proxy is not asked for loopback.
    """
    env = {**(os.environ if base is None else base), **target.bench_env}
    for name in (RUST_CLIENT, "OPENAI_API_KEY"):
        env.pop(name, None)
    if target.api_key:
        env["OPENAI_API_KEY"] = target.api_key
    env["PYTHONUNBUFFERED"] = "1"
    host = httpx.URL(target.base_url).host
    if host in ("127.0.0.1", "localhost", "::1"):
        for name in ("NO_PROXY", "no_proxy"):
            env[name] = ",".join(filter(None, (env.get(name), host)))
    return env


def run_client(
    argv: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    deadline: float,
    check: Callable[[], None],
) -> int:
    """Runs the client to its end; its exit code. Its output is appended to log as it comes.

    deadline: seconds. check: called twice a second; what it raises ends the client at once. The
    client's whole process tree is gone when this returns or raises, and soon after this process
    dies of anything. Raises ObservationError past the deadline or when it cannot be started.
    """
    asked = shlex.join(argv)
    with log.open("a", encoding="utf-8") as start:
        start.write(f"$ {asked}\n")
    try:
        client = Custody(argv, env, log, f"client-{uuid.uuid4().hex}", log.parent)
    except ServerError as error:
        raise ObservationError(
            "the benchmark client could not be started", asked=asked, cause=error.cause, log=log
        ) from error
    limit = time.monotonic() + deadline
    try:
        while (code := client.wait_exit(POLL)) is None:
            check()
            if client.exited:
                code = client.wait_exit(POLL)
                break
            if time.monotonic() > limit:
                raise ObservationError(
                    f"the benchmark client did not end within {deadline:.0f} s",
                    asked=asked,
                    cause=last_line(log),
                    log=log,
                    hint="the server's log of the same time says what it was doing",
                )
    finally:
        client.end(CLIENT_GRACE)
    if code is None:
        raise ObservationError(
            "the benchmark client ended without telling how", asked=asked, log=log
        )
    return code


def run_cell(
    target: Target,
    cell: Cell,
    run_dir: Path,
    *,
    warm: WarmRule | None = None,
    deadline: float | None = None,
) -> CellRun:
    """Warms up, measures one cell, and writes under run_dir/cells: the tool's own JSON, its
    output, and what that JSON leaves out.

    deadline: seconds for the client, and for one warm-up request; by default from the cell's
    expected duration. Raises ServerError when the server dies or hangs, ObservationError when the
    client does or its result cannot be read. Failed requests raise nothing: see validity.py.
    """
    folder = (run_dir / "cells").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{cell.deployment}.{cell.id}"
    result_file, client_log = folder / f"{name}.json", folder / f"{name}.client.log"
    result_file.unlink(missing_ok=True)  # an older file must never be read as this run's
    argv = command(target, cell, result_file)
    deadline = deadline or deadline_seconds(target.deployment, cell)
    warmed = warm_up(target, cell, deadline, warm)
    target.check()
    before, log_start, started = settled_counters(target), log_size(target), time.time()
    offset = time.time() - time.perf_counter()
    code = run_client(argv, environment(target), client_log, deadline, target.check)
    ended = time.time()
    target.check()
    if code != 0:
        raise ObservationError(
            f"the benchmark client ended with exit code {code}",
            asked=shlex.join(argv),
            cause=last_line(client_log),
            log=client_log,
        )
    result = read_result(result_file)
    run = CellRun(
        cell=cell,
        lane=target.deployment.lane.value,
        ranks=target.deployment.layout.data,
        window=measured_window(result, started, ended, offset),
        argv=argv,
        exit_code=code,
        result_file=result_file,
        client_log=client_log,
        server_log=target.log,
        before=before,
        after=settled_counters(target),
        log_span=(log_start, log_size(target)),
        warmup=warmed,
        result=result,
    )
    beside = run.model_dump_json(exclude={"result"}, indent=1)
    (folder / f"{name}.run.json").write_text(beside + "\n", encoding="utf-8")
    return run


def log_size(target: Target) -> int:
    """Bytes in the server's log so far; 0 when there is none to read."""
    with contextlib.suppress(OSError):
        return target.log.stat().st_size if target.log else 0
    return 0


def last_line(log: Path) -> str:
    """The last line of a log that says something, without the progress bars before it."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.rsplit("\r", 1)[-1].strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")
