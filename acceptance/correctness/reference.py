"""An independent account of the same tokens: transformers, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.correctness.scoring import Scored
from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
MODULE = "acceptance.rehearsal.inside.reference_logprobs"


def reference_scores(
    checkpoint: str,
    prompts: Mapping[str, Sequence[int]],
    folder: Path,
    *,
    python: str = sys.executable,
    timeout: float = 300,
) -> list[Scored]:
    """Scores prompts (token ids by name) with transformers on this checkpoint.

    folder: where question and answer are kept as evidence. python: an interpreter that has torch
    and transformers; vLLM's own has. timeout: seconds. Raises ObservationError when it cannot be
    computed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given, out = folder / "reference-asked.json", folder / "reference.json"
    given.write_text(json.dumps({name: list(tokens) for name, tokens in prompts.items()}))
    out.unlink(missing_ok=True)
    command = [python, "-m", MODULE, checkpoint, str(given), str(out)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
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
    try:
        said = json.loads(out.read_text())
        return [
            Scored(name, tuple(tokens), tuple(said[name]["logprobs"]), tuple(said[name]["best"]))
            for name, tokens in prompts.items()
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ObservationError(
            "transformers' answer cannot be read", asked=" ".join(command), cause=repr(error)
        ) from error
