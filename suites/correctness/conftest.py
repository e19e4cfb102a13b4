"""Dummy weights answer, and what they answer means nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.judging import not_applicable

if TYPE_CHECKING:
    from acceptance.deployments.schema import Deployment


@pytest.fixture(scope="session", autouse=True)
def weights_that_mean_something(deployment: Deployment) -> None:
    """Leaves correctness out where there is nothing to be correct about."""
    if deployment.dummy_weights:
        not_applicable("dummy weights: their tokens mean nothing")
