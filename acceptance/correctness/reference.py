"""An independent account of the same tokens: transformers, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from acceptance.correctness.scoring import TOP, Scored
from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
# Many small operations: beside a server on the same cores, threads that wait for each other took
# 33 s of a processor where one alone takes 2.
THREADS = {"OMP_NUM_THREADS": "1"}
MODULE = "acceptance.correctness.inside.reference_logprobs"


@dataclass(frozen=True)
class Reference:
    """exact: computed in float32. rounded: in bfloat16, as servers compute; how far the two lie
    apart is what precision alone makes of this checkpoint."""

    exact: list[Scored]
    rounded: list[Scored]


def reference_scores(
    checkpoint: str,
    prompts: Mapping[str, Sequence[int]],
    folder: Path,
    *,
    python: str = sys.executable,
    timeout: float = 300,
) -> Reference:
    """Scores prompts (token ids by name) with transformers on this checkpoint.

    folder: where question and answer are kept, as evidence and for the next who asks the same.
    python: an interpreter that has torch and transformers; vLLM's own has. timeout: seconds.
    Raises ObservationError when it cannot be computed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = json.dumps({name: list(tokens) for name, tokens in prompts.items()})
    digest = hashlib.sha256(f"{checkpoint}\n{asked}".encode()).hexdigest()[:12]
    given, out = folder / f"asked-{digest}.json", folder / f"reference-{digest}.json"
    command = [python, "-m", MODULE, checkpoint, str(given), str(out), str(TOP)]
    with FileLock(folder / "reference.lock"):
        if not out.exists():
            given.write_text(asked)
            _run(command, out, timeout)
    try:
        said = json.loads(out.read_text())
        return Reference(_scored(said["float32"], prompts), _scored(said["bfloat16"], prompts))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        out.unlink(missing_ok=True)
        raise ObservationError(
            "transformers' answer cannot be read", asked=" ".join(command), cause=repr(error)
        ) from error


def _run(command: list[str], out: Path, timeout: float) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **THREADS},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ObservationError(
            f"transformers did not score the texts within {timeout:.0f} s", asked=MODULE
        ) from error
    except OSError as error:
        raise ObservationError(
            "transformers could not be asked", asked=" ".join(command), cause=str(error)
        ) from error
    if done.returncode != 0 or not out.exists():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ObservationError(
            "transformers could not score the texts", asked=" ".join(command), cause=lines[-1]
        )


def _scored(said: dict[str, Any], prompts: Mapping[str, Sequence[int]]) -> list[Scored]:
    return [
        Scored(
            name,
            tuple(tokens),
            tuple(said[name]["logprobs"]),
            tuple(said[name]["best"]),
            tuple({int(k): float(v) for k, v in top.items()} for top in said[name]["tops"]),
        )
        for name, tokens in prompts.items()
    ]
