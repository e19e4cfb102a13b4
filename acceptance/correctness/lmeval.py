"""lm-eval against a server, in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acceptance.errors import ObservationError
from acceptance.serving.addresses import bases_of

if TYPE_CHECKING:
    from acceptance.correctness.benchmarks import Benchmark
    from acceptance.serving.server import Server

ROOT = Path(__file__).parents[2]
MODULE = "acceptance.correctness.inside.evaluate"
TASKS = Path(__file__).parent / "tasks"  # our own task files
SUFFIXES = (".jsonl", ".json", ".parquet")
CONCURRENT = 128


@dataclass(frozen=True)
class Answer:
    """One question. right: by the task's own extraction; a truncated answer never is."""

    question: str
    right: bool
    extracted: bool
    truncated: bool
    text: str


class NoData(ObservationError):
    """The data set, or lm-eval itself, cannot be had here."""


def lm_eval_version() -> str:
    """Of lm-eval in this environment; empty where it is not installed."""
    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError:
        return ""


def data_files(folder: Path | None, benchmark: Benchmark) -> dict[str, str]:
    """The benchmark's local files by split; empty where no folder was given. Raises NoData for a
    folder that lacks one."""
    if folder is None:
        return {}
    found = {}
    for split in benchmark.data:
        base = folder / benchmark.name / split
        path = next((p for s in SUFFIXES if (p := base.with_suffix(s)).is_file()), None)
        if path is None:
            raise NoData(
                f"{base}.jsonl is not there", asked=f"--accuracy-data {folder}",
                hint=f"{benchmark.name} needs the splits {', '.join(benchmark.data)}",
            )  # fmt: skip
        found[split] = str(path)
    return found


def job_of(
    server: Server, benchmark: Benchmark, *, limit: int, longest: int, data: dict[str, str]
) -> dict[str, Any]:
    """What evaluate.py is told. longest: tokens of a request, prompt and answer."""
    own = (TASKS / f"{benchmark.task}.yaml").exists()
    budget = server.deployment.budgets.request
    return {
        "task": benchmark.task,
        "include": [str(TASKS)] if own else [],
        "defaults": not own,
        "data": data,
        "model": server.model,
        "urls": [f"{url}/v1/chat/completions" for url in bases_of(server)],
        "concurrent": max(1, int(CONCURRENT * server.deployment.scale.batch)),
        "tokens": min(benchmark.tokens, longest // 2),
        "shots": benchmark.shots,
        "limit": limit,
        "sampling": {"temperature": benchmark.temperature, "top_p": benchmark.top_p},
        "filter": benchmark.filter,
        "timeout": int(budget * 4),  # a question waits for those before it
    }


def evaluate(
    job: dict[str, Any], key: str, folder: Path, *, timeout: float, python: str = sys.executable
) -> list[Answer]:
    """Runs a job; what was asked and answered stays in folder. timeout: seconds.

    Raises NoData when the data set cannot be had, ObservationError when lm-eval fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked, out = folder / f"{job['task']}-job.json", folder / f"{job['task']}-answers.json"
    asked.write_text(json.dumps(job))
    out.unlink(missing_ok=True)
    command = [python, "-m", MODULE, str(asked), str(out)]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": key or "none",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if job["data"]:
        env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ObservationError(
            f"lm-eval did not end within {timeout:.0f} s", asked=job["task"]
        ) from error
    (folder / f"{job['task']}.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0 or not out.exists():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ObservationError("lm-eval failed", asked=" ".join(command), cause=lines[-1])
    said = json.loads(out.read_text())
    if "missing" in said:
        raise NoData(f"the data set of {job['task']} cannot be had: {said['missing']}")
    return [Answer(**answer) for answer in said["answers"]]
