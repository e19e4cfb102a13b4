"""Shared by the suite's own tests."""

from __future__ import annotations

pytest_plugins = ["pytester"]


def pytest_collect_file() -> None:
    """Before the first of these tests is imported. Not at the head of this file: pytest loads it
    in every run that starts in the root folder, where hypothesis need not be installed."""
    import os

    from hypothesis import HealthCheck, settings

    # Runs that tests make are none that a CI job should hear of.
    os.environ.pop("GITHUB_STEP_SUMMARY", None)
    # Drawing takes half a second in each of them; tests/reports/test_reports_browser.py draws.
    os.environ.setdefault("ACCEPTANCE_CHARTS", "0")

    # A loaded machine is no failure: examples have no deadline.
    settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("suite")
