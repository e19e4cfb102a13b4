"""The rehearsal's checkpoint: shipped with the suite, and copied to where a server reads it; its
forms in FP8 and NVFP4, for the slice lane, are made of it when they are first asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from acceptance.errors import InputError
from acceptance.made import ROOT, cache_folder, made_once

WEIGHTS = Path(__file__).parent / "weights"
EXPORT = "acceptance.rehearsal.inside.export"
MAKERS = ("export.py", "formats.py", "heads.py")  # what decides how a quantised one looks
EXPORTED = {"fp8": "fp8", "fp4": "nvfp4"}  # by a deployment's precision
EXPORT_TIMEOUT = 300.0
# Below a quantised checkpoint's folder: its weights as float32, for those who cannot read its form.
UNPACKED = "unpacked"
FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def digest(folder: Path = WEIGHTS) -> str:
    """12 hexadecimal digits that another checkpoint would not have."""
    total = hashlib.sha256()
    for name in FILES:
        total.update(f"{name}\n".encode() + (folder / name).read_bytes())
    return total.hexdigest()[:12]


def ensure_checkpoint(cache: Path | None = None) -> Path:
    """The checkpoint's directory: a copy that no checkout changes under a running server.

    cache: see cache_folder(). Raises InputError when the shipped files are not whole, or cannot be
    copied.
    """
    folder = cache_folder(cache)
    try:
        return made_once(folder / f"deepseek-v3-tiny-{digest()}", _copy)
    except OSError as error:
        raise InputError(
            "the rehearsal's checkpoint could not be made ready",
            asked=f"a copy of {WEIGHTS} in {folder}",
            cause=str(error),
            hint="the files come with the suite: check out what is missing; see docs/rehearsal.md",
        ) from error


def ensure_quantised(
    precision: str, *, python: str = sys.executable, cache: Path | None = None
) -> Path:
    """The same checkpoint in blocks of FP8, or in NVFP4; below it, UNPACKED holds what its values
    mean.

    precision: fp8 or fp4. python: an interpreter that has torch and safetensors; vLLM's own has.
    cache: see cache_folder(). Raises InputError when it cannot be made.
    """
    form = EXPORTED[precision]
    makers = b"".join((Path(__file__).parent / "inside" / name).read_bytes() for name in MAKERS)
    made_of = hashlib.sha256(f"{digest()}\n".encode() + makers).hexdigest()[:12]
    wanted = cache_folder(cache) / f"deepseek-v3-tiny-{form}-{made_of}"
    command = [python, "-m", EXPORT, "--precision", form]
    try:
        return made_once(wanted, lambda folder: _run([*command, str(folder)]))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise InputError(
            f"the trained checkpoint could not be made in {form}",
            asked=" ".join(command),
            cause=str(said).strip().splitlines()[-1],
            hint="it takes torch, safetensors and tokenizers, which come with vLLM",
        ) from error


def _run(command: list[str]) -> None:
    # Without GPUs: what is computed is small, and a GPU's memory is the server's.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        check=True,
        capture_output=True,
        text=True,
        timeout=EXPORT_TIMEOUT,
    )


def _copy(folder: Path) -> None:
    folder.mkdir()
    for name in FILES:
        shutil.copyfile(WEIGHTS / name, folder / name)
