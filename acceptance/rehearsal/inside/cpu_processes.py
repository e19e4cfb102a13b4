"""vLLM plugin: engines, workers and further API servers begin with their modules imported.

They are copies of the fork server that preloading.py has started, and otherwise as vLLM's own
spawned ones: they get the environment of the process that starts them, their arguments by pickle,
no descriptor that they were not given, and the core that vLLM would have bound them to. Their exit
code comes through the fork server, and its death is theirs to vLLM. What needs more than one core,
or is none of these, is spawned as ever.
"""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from multiprocessing import context, forkserver, popen_forkserver, resource_tracker
from typing import Any

from acceptance.rehearsal.inside.preloading import VARIABLE

TARGETS = {
    "EngineCoreProc.run_engine_core",
    "WorkerProc.worker_main",
    "DPCoordinatorProc.run_coordinator",
    "run_api_server_worker_proc",
}
BINDING = "GOMP_CPU_AFFINITY"  # cores of a worker's OpenMP threads, separated by blanks
THREADS = "OMP_NUM_THREADS"
METRICS = "PROMETHEUS_MULTIPROC_DIR"  # where several API servers keep their counters together


def register() -> None:
    """Entry point of `vllm.general_plugins`; vLLM calls it in each of its processes."""
    # Copies know their fork server already; engines are not to have the variable.
    owner, _, rest = os.environ.pop(VARIABLE, "").partition(":")
    server: Any = forkserver._forkserver
    if owner == str(os.getpid()):
        alive, _, server._forkserver_address = rest.partition(":")
        server._forkserver_alive_fd = int(alive)
        os.set_inheritable(int(alive), False)
    elif forkserver.get_inherited_fds() is None:
        return  # neither the API server nor a copy
    server.ensure_running = resource_tracker.ensure_running
    contexts: Any = context
    contexts._concrete_contexts["spawn"] = _Context()


class _Process(context.SpawnProcess):
    @staticmethod
    def _Popen(process: Any) -> Any:
        if _can_be_copied(process):
            with suppress(OSError, EOFError):  # nobody listens, or no longer
                return popen_forkserver.Popen(process)
        return context.SpawnProcess._Popen(process)

    def __reduce__(self) -> Any:
        if not isinstance(context.get_spawning_popen(), popen_forkserver.Popen):
            return super().__reduce__()
        # The environment first: what comes after may look at it.
        return _begin, (dict(os.environ), type(self)), self.__dict__


class _Context(context.SpawnContext):
    Process = _Process


def _can_be_copied(process: Any) -> bool:
    one_core = len(os.environ.get(BINDING, "0").split()) == 1
    return one_core and getattr(process._target, "__qualname__", "") in TARGETS


def _begin(environment: dict[str, str], kind: type[_Process]) -> _Process:
    """In the new process, before its arguments are read. environment: of who started it."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    if THREADS in environment:
        import torch

        torch.set_num_threads(int(environment[THREADS]))
    if BINDING in environment:
        # OpenMP binds a process as it is loaded, and was loaded before this one began.
        os.sched_setaffinity(0, {int(core) for core in environment[BINDING].split()})
    if METRICS in environment:
        values: Any = importlib.import_module("prometheus_client.values")
        values.ValueClass = values.get_value_class()  # decided on import, for one server alone
    return kind.__new__(kind)
