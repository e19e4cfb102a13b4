"""The benchmark client that stays: one process for many cells, importing vLLM only once.

pytest's side of inside/bench_worker.py. Started while the server loads, the import costs no time
in which GPUs wait; the prompts of coming cells are made while other checks run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import shutil
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.errors import ObservationError, ServerError
from acceptance.load.command import arguments, client_environment, command, no_proxy_for
from acceptance.load.engine import ClientLoad, LoadEngine, last_line
from acceptance.serving.addresses import bases_of
from acceptance.serving.custody import Custody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from acceptance.deployments.installed import Vllm
    from acceptance.load.target import Target
    from acceptance.load.workloads import Cell

ROOT = Path(__file__).parents[2]
MODULE = "acceptance.load.inside.bench_worker"
POLL = 0.5  # seconds between looks at worker and server
GRACE = 2.0  # seconds from SIGTERM to SIGKILL
START = 300.0  # seconds for the import: 8 to 45 on an idle machine, and it need not be idle
UNFIT = "cannot use this vLLM's benchmark code"
FALLBACK = "--load-engine cli runs the same client as a command of its own for every cell"


class BenchWorker:
    """An Engine. env: what the lane adds to a client's environment. log: the process's own log;
    every run has another."""

    name = LoadEngine.WORKER

    def __init__(self, vllm: Vllm, env: Mapping[str, str], log: Path) -> None:
        self._vllm, self._env, self._log = vllm, env, log
        self._numbers = itertools.count(1)
        self._process: _Process | None = None
        self._unfit = ""

    def start(self) -> None:
        """Starts importing; does not wait for it. Raises ObservationError when it cannot start,
        and when it has already found that this vLLM is not for it."""
        if self._process is not None and self._process.unfit:
            self._unfit = self._process.unfit
        if self._unfit:
            raise _failed(UNFIT, self._unfit, self._vllm, self._log)
        if self._process is None or self._process.over:
            self.close()
            self._process = _Process(self._vllm, self._env, self._log)

    def begin(self) -> None:
        """start() for when nobody waits for it: what stops it is told at the first cell."""
        with contextlib.suppress(ObservationError):
            self.start()

    def wait_ready(self, check: Callable[[], None] = lambda: None) -> None:
        """Waits until vLLM is imported. Raises ObservationError when it cannot be."""
        self.start()
        assert self._process is not None
        self._process.wait_ready(check)

    def prepare(self, target: Target, cells: Sequence[Cell]) -> None:
        """Has the cells' prompts made meanwhile, in this order."""
        self.begin()
        if self._process is None:
            return
        with contextlib.suppress(ObservationError):
            for cell in cells:
                argv = arguments(command(target, cell, self._log))
                self._process.order({"do": "prepare", "id": next(self._numbers), "argv": argv})

    def run(
        self,
        target: Target,
        argv: tuple[str, ...],
        log: Path,
        deadline: float,
        check: Callable[[], None],
    ) -> ClientLoad:
        """See Engine. A worker that died or was ended is started again."""
        self.start()
        process = self._process
        assert process is not None
        asked = shlex.join(argv)
        with log.open("a", encoding="utf-8") as start:
            start.write(f"$ {asked}\n")
        try:
            process.wait_ready(check)
            number = next(self._numbers)
            order = {"do": "run", "id": number, "argv": arguments(argv)}
            order |= {"log": str(log.resolve()), "key": target.api_key}
            process.order({**order, "urls": bases_of(target)})
            answer = process.wait_for(number, deadline, check, asked, log)
        except BaseException:
            self._unfit = process.unfit
            self.close()  # it may be in the middle of a run, which must not go on
            raise
        if answer["said"] != "done":
            raise ObservationError(
                f"the benchmark client failed: {answer['reason']}",
                asked=asked,
                cause=last_line(log),
                log=log,
            )
        return ClientLoad.model_validate(answer["client"])

    def close(self) -> None:
        """Ends the process. Safe to call again; a later run starts a new one."""
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    """One life of the worker. It ends with this process, by its warden and by its socket."""

    def __init__(self, vllm: Vllm, env: Mapping[str, str], log: Path) -> None:
        self._vllm, self._log = vllm, log
        self._told = threading.Condition()
        self._deaf = False  # it says no more
        self._ready = False
        self.unfit = ""  # why this vLLM cannot be used
        self._answers: dict[int, dict[str, Any]] = {}
        self._waiting: list[dict[str, Any]] = []  # orders from before it was there
        self._channel: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._folder = Path()
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="acceptance-"))  # ours alone: mode 0700
            address = str(self._folder / "worker")
            self._listener.bind(address)
            self._listener.listen(1)
            self._listener.settimeout(POLL)
            log.parent.mkdir(parents=True, exist_ok=True)
            argv = (vllm.python, "-m", MODULE, address)
            self._custody = Custody(argv, _environment(env), log, _mark(), log.parent)
        except ServerError as error:
            self._clean()
            raise _failed("could not be started", error.cause, vllm, log) from error
        except OSError as error:  # no room for temporary files, or too long a path to them
            self._clean()
            raise _failed("could not be started", str(error), vllm, log) from error
        except BaseException:  # interrupted: nobody else knows of the folder yet
            self._clean()
            raise
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether it is gone, or fit for nothing."""
        return self._deaf or bool(self.unfit) or self._custody.exited

    def order(self, order: dict[str, Any]) -> None:
        """Sends an order; one that comes before the worker is there waits for it."""
        with self._told:
            if self._channel is None:
                self._waiting.append(order)
                return
            with contextlib.suppress(OSError):  # dead: whoever waits for the answer will see
                self._channel.sendall(json.dumps(order).encode() + b"\n")

    def wait_ready(self, check: Callable[[], None]) -> None:
        """Waits for the import. Raises ObservationError when it fails or takes too long."""
        limit = time.monotonic() + START
        while not self._until(lambda: self._ready or bool(self.unfit)):
            check()
            if self._deaf:
                raise _failed(
                    "died while importing vLLM", last_line(self._log), self._vllm, self._log
                )
            if time.monotonic() > limit:
                late = f"did not import vLLM within {START:.0f} s"
                raise _failed(late, "", self._vllm, self._log)
        if self.unfit:
            raise _failed(UNFIT, self.unfit, self._vllm, self._log)

    def wait_for(
        self, number: int, deadline: float, check: Callable[[], None], asked: str, log: Path
    ) -> dict[str, Any]:
        """The answer to an order. Raises ObservationError when the worker dies or is too slow."""
        limit = time.monotonic() + deadline
        while not self._until(lambda: number in self._answers):
            check()
            if self._deaf and number not in self._answers:
                raise ObservationError(
                    f"the benchmark client died: it {self._custody.fate}",
                    asked=asked,
                    cause=last_line(log),
                    log=log,
                    hint=FALLBACK,
                )
            if time.monotonic() > limit:
                raise ObservationError(
                    f"the benchmark client did not end within {deadline:.0f} s",
                    asked=asked,
                    cause=last_line(log),
                    log=log,
                    hint="the server's log of the same time says what it was doing",
                )
        return self._answers.pop(number)

    def end(self) -> None:
        self._custody.end(GRACE)
        self._clean()

    def _until(self, holds: Callable[[], bool]) -> bool:
        with self._told:
            return self._told.wait_for(lambda: holds() or self._deaf, timeout=POLL) and holds()

    def _listen(self) -> None:
        try:
            channel = self._accept()
            if channel is None:
                return
            with channel, channel.makefile("rb") as lines:
                for line in lines:
                    self._hear(json.loads(line))
        except (OSError, ValueError):
            pass  # a connection that broke or went mad is an end like another
        finally:
            self._custody.wait_exit(POLL)  # so that the error can say how it ended
            with self._told:
                self._deaf = True
                self._told.notify_all()

    def _accept(self) -> socket.socket | None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except TimeoutError:
                if self._custody.exited:
                    return None
                continue
            channel.settimeout(None)
            self._clean()  # nobody else is to come, and a killed pytest cannot do it later
            with self._told:
                for order in self._waiting:
                    channel.sendall(json.dumps(order).encode() + b"\n")
                self._channel = channel
            return channel

    def _hear(self, answer: dict[str, Any]) -> None:
        with self._told:
            match answer["said"]:
                case "ready":
                    self._ready = True
                case "unfit":
                    self.unfit = answer["reason"]
                case "done" | "failed":
                    self._answers[answer["id"]] = answer
            self._told.notify_all()

    def _clean(self) -> None:
        self._listener.close()
        if self._folder.name:
            shutil.rmtree(self._folder, ignore_errors=True)


def _failed(what: str, cause: str, vllm: Vllm, log: Path) -> ObservationError:
    return ObservationError(
        f"the benchmark worker {what}",
        asked=f"{vllm.python} -m {MODULE}",
        cause=cause,
        log=log,
        hint=FALLBACK,
    )


def _mark() -> str:
    return f"client-{uuid.uuid4().hex}"


def _environment(additions: Mapping[str, str]) -> dict[str, str]:
    """No GPU is visible to it, so that it can neither take memory of one nor touch it."""
    env = client_environment(additions)
    path = env.get("PYTHONPATH", "")
    if str(ROOT) not in path.split(":"):
        env["PYTHONPATH"] = ":".join(filter(None, (str(ROOT), path)))
    return {**env, **no_proxy_for(env, "127.0.0.1", "localhost"), "CUDA_VISIBLE_DEVICES": ""}
