"""`vllm bench serve` as a supervised process, started anew for every cell."""

from __future__ import annotations

import contextlib
import shlex
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from acceptance.errors import InputError, ObservationError, ServerError
from acceptance.load.command import environment
from acceptance.load.engine import ClientLoad, LoadEngine, last_line
from acceptance.load.result import read_result
from acceptance.serving.custody import Custody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from acceptance.deployments.installed import Vllm
    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

POLL = 0.5  # seconds between looks at client and server
GRACE = 2.0  # seconds from SIGTERM to SIGKILL for a client that is ended
RUST_BINARY = "vllm-rs"  # in the package's own folder, as vLLM 0.32 looks for it
RUST_PATH = "VLLM_RUST_FRONTEND_PATH"  # the caller's own binary

Use = tuple[float, float]  # perf_counter, CPU seconds of the client so far


class CliEngine:
    """The command itself; with rust, handed on by it to vLLM's Rust client."""

    def __init__(self, *, rust: bool = False) -> None:
        self.name = LoadEngine.RUST if rust else LoadEngine.CLI

    def prepare(self, target: Target, cells: Sequence[Cell]) -> None:
        """Nothing can be done early for a process that is not there yet."""

    def run(
        self,
        target: Target,
        argv: tuple[str, ...],
        log: Path,
        deadline: float,
        check: Callable[[], None],
    ) -> ClientLoad:
        """See Engine. Of the client's load only its CPU is seen, to half a second."""
        env = environment(target, rust=self.name is LoadEngine.RUST)
        used: list[Use] = []
        code = run_client(argv, env, log, deadline, check, used)
        if code != 0:
            raise ObservationError(
                f"the benchmark client ended with exit code {code}",
                asked=shlex.join(argv),
                cause=last_line(log),
                log=log,
            )
        return ClientLoad(cpu_share=_share(used, argv))

    def close(self) -> None:
        """Nothing runs between cells."""


def run_client(
    argv: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    deadline: float,
    check: Callable[[], None],
    used: list[Use] | None = None,
) -> int:
    """Runs the client to its end; its exit code. Its output is appended to log as it comes.

    deadline: seconds. check: called twice a second; what it raises ends the client at once. used:
    filled with the CPU it used. The client's whole process tree is gone when this returns or
    raises, and soon after this process dies of anything. Raises ObservationError past the deadline
    or when it cannot be started.
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
            if used is not None:
                used.extend(_cpu(client.pid))
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
        client.end(GRACE)
    if code is None:
        raise ObservationError(
            "the benchmark client ended without telling how", asked=asked, log=log
        )
    return code


def find_rust_client(vllm: Vllm, given: str = "") -> Path:
    """The Rust client's binary. given: the caller's $VLLM_RUST_FRONTEND_PATH. Raises InputError
    naming where it was looked for: the tool would fail only at the first cell."""
    if given and given.lower() not in ("auto", "1", "true"):
        looked = [Path(given)]
    else:
        root = Path(vllm.python).absolute().parents[1]
        looked = sorted(root.glob(f"lib/python3*/site-packages/vllm/{RUST_BINARY}"))
    for path in looked:
        if path.is_file() and path.stat().st_mode & 0o111:
            return path
    raise InputError(
        f"the vLLM here ({vllm.version}) has no Rust benchmark client",
        asked=f"--load-engine rust: {RUST_BINARY} beside vLLM for {vllm.python}",
        hint=f"set {RUST_PATH} to one that you built, or use --load-engine worker",
    )


def _cpu(pid: int | None) -> list[Use]:
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return [(time.perf_counter(), times.user + times.system)]
    return []


def _share(used: list[Use], argv: tuple[str, ...]) -> float | None:
    """CPU seconds per second in the measured window; None when it was shorter than two looks."""
    folder = argv[argv.index("--result-dir") + 1]
    result = read_result(Path(folder) / argv[argv.index("--result-filename") + 1])
    if not result.start_times:
        return None
    start = min(result.start_times)
    inside = [use for use in used if start <= use[0] <= start + result.duration]
    if len(inside) < 2:
        return None
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])
