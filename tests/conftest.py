"""Shared by the suite's own tests."""

from __future__ import annotations

pytest_plugins = ["pytester"]


def pytest_collect_file() -> None:
    """Before the first of these tests is imported. Not at the head of this file: pytest loads it
    in every run that starts in the root folder, where hypothesis need not be installed."""
    from hypothesis import HealthCheck, settings

    # A loaded machine is no failure: examples have no deadline.
    settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("suite")
