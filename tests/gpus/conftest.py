"""A made-up libnvidia-ml.so.1 for the real nvidia-ml-py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from gpus_library import build_library

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that it was built in; skips without a C compiler."""
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def library(fake_library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, found by every process that a test starts."""
    before = os.environ.get("LD_LIBRARY_PATH", "")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{fake_library}:{before}")
    return fake_library
