"""Runs of the suite: each is pytest in a process of its own, forked from one that has imported what
takes long, so that a run costs half a second and not two."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

from defects_scoring import Ran

from acceptance.serving.processes import leftovers
from reports.reading import Results, read_results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DROPPED = ("PYTHONDONTWRITEBYTECODE", "PYTEST_", "ACCEPTANCE_", "CUDA_VISIBLE", "VLLM_", "FAKE_")
# Plugins that happen to be installed, take a second to import and do nothing for the suite.
UNUSED = [
    word for name in ("schemathesis", "hypothesispytest", "anyio") for word in ("-p", f"no:{name}")
]
PRELOAD = "defects_preload"
GRACE = 20.0  # seconds for a run that was told to end


@dataclass(frozen=True)
class Asked:
    """One run. words: pytest's. env: on top of what the runner has itself. limit: seconds until it
    is ended by force. nice: its niceness."""

    words: Sequence[str]
    env: Mapping[str, str]
    limit: float
    nice: int = 0


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without what would change a run, and with the defects' folder on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(DROPPED)}
    kept = {**kept, "COLUMNS": "160", **more}
    paths = [more.get("PYTHONPATH", ""), str(HERE), str(ROOT)]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Runs:
    """Starts runs, each into a folder of its own. library: folder of the made-up driver's library;
    processes find it only when it is named before they start."""

    def __init__(self, folder: Path, library: Path | None = None) -> None:
        self.folder = folder
        paths = filter(None, (str(library or ""), os.environ.get("LD_LIBRARY_PATH", "")))
        found = os.pathsep.join(paths)
        self._env = {"LD_LIBRARY_PATH": found} if found else {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])
        before = dict(os.environ)
        os.environ.update(environment(self._env))
        try:
            # It, and what it forks, finds the library; we do not. Before 3.13 it looks for what it
            # imports on PYTHONPATH alone, and goes on in silence without what it does not find.
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def run(self, name: str, asked: Asked) -> Ran:
        """Blocks until it has ended. Safe to call from several threads."""
        run_dir = self.folder / name
        out = self.folder / f"{name}.out"
        words = ["-p", "defects_inject", "-p", "no:cacheprovider", *UNUSED, *asked.words]
        words += ["--run-dir", str(run_dir)]
        env = environment({**self._env, **asked.env})
        began = time.monotonic()
        process = self._context.Process(target=_pytest, args=(words, env, out, asked.nice))
        process.start()
        process.join(asked.limit)
        if late := process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()
        seconds = time.monotonic() - began
        results = read_results(run_dir) if run_dir.is_dir() else Results()
        text = out.read_text(encoding="utf-8", errors="replace") if out.is_file() else ""
        return Ran(process.exitcode or 0, text, results, seconds, late)


def left_behind(since: float) -> list[str]:
    """Processes of servers that outlived their runs; none may."""
    return [f"{left.pid} {left.command}" for left in leftovers()]


def _pytest(words: list[str], env: dict[str, str], out: Path, nice: int) -> None:
    """In the forked process: becomes `python -m pytest words`."""
    os.setsid()
    os.nice(nice)
    with out.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    added = [path for path in env["PYTHONPATH"].split(os.pathsep) if path not in sys.path]
    sys.path[:0] = added
    sys.argv = ["pytest", *words]
    sys.dont_write_bytecode = False  # what pytest rewrites is kept for the next run
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import pytest

    code = pytest.main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code))


def note(path: Path, what: object) -> None:
    """Writes JSON for a person or a later run."""
    path.write_text(json.dumps(what, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
