"""A made-up libnvidia-ml.so.1 for the real nvidia-ml-py."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
SOURCE = Path(__file__).with_name("gpus_fake_nvml.c")


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that it was built in; skips without a C compiler."""
    if COMPILER is None:
        pytest.skip("no C compiler (cc, gcc or clang) to build a stand-in library with")
    directory = tmp_path_factory.mktemp("nvml")
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-o", directory / "libnvidia-ml.so.1", SOURCE], check=True
    )
    return directory


@pytest.fixture
def library(fake_library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, found by every process that a test starts."""
    before = os.environ.get("LD_LIBRARY_PATH", "")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{fake_library}:{before}")
    return fake_library
