"""What every run imports, imported once. Nothing that pytest wants to rewrite."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
from contextlib import suppress

import httpx
import psutil
import pydantic
import pytest

import acceptance.conformance.refusals
import acceptance.correctness.scoring
import acceptance.gpus.health
import acceptance.judging.judge
import acceptance.load.bench
import acceptance.serving.launch
import acceptance.serving.live
import acceptance.simulation.command
import reports.html
import reports.ruling

for name in ("openai", "reports.charts.canvas", "reports.charts.startup", "reports.charts.memory"):
    with suppress(ImportError):
        importlib.import_module(name)

KEPT = (httpx, psutil, pydantic, pytest, acceptance, reports)
# For every plugin that the suite names, pytest looks through all that is installed, time and again.
PLUGINS = [
    found
    for found in importlib.metadata.distributions()
    if any(point.group == "pytest11" for point in found.entry_points)
]
importlib.metadata.distributions = lambda: PLUGINS  # type: ignore[assignment]
gc.freeze()  # what runs collect is theirs alone: the rest stays shared, and is not looked through
