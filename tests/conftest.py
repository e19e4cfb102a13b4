"""Shared by the suite's own tests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

pytest_plugins = ["pytester"]


def pytest_collect_file() -> None:
    """Before the first of these tests is imported. Not at the head of this file: pytest loads it
    in every run that starts in the root folder, where hypothesis need not be installed."""
    import os

    from hypothesis import HealthCheck, settings

    # Runs that tests make are none that a CI job should hear of, nor part of one with workers.
    for name in ("GITHUB_STEP_SUMMARY", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        os.environ.pop(name, None)
    # Drawing takes half a second in each of them; tests/reports/test_reports_browser.py draws.
    os.environ.setdefault("ACCEPTANCE_CHARTS", "0")

    # A loaded machine is no failure: examples have no deadline.
    settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    quality = sys.modules.get("test_quality")
    worker = hasattr(session.config, "workerinput")  # of several, each would begin it
    if quality is None or worker or session.config.option.collectonly:
        return (yield)
    with quality.beside(session.items):
        return (yield)
