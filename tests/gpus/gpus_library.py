"""Builds the made-up libnvidia-ml.so.1."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
SOURCE = Path(__file__).with_name("gpus_fake_nvml.c")


def build_library(folder: Path) -> Path:
    """The folder that it was built in; skips without a C compiler."""
    if COMPILER is None:
        pytest.skip("no C compiler (cc, gcc or clang) to build a stand-in library with")
    words = [COMPILER, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE]
    subprocess.run(words, check=True)
    return folder
