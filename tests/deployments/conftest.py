"""Deployments made for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.deployments.schema import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {"hopper": "H200", "blackwell": "B200", "cpu": None}


@pytest.fixture
def make() -> Callable[..., Deployment]:
    """make(architecture, precision, **options): a TP+EP deployment on that hardware."""

    def made(
        architecture: str = "hopper",
        precision: str = "fp8",
        *,
        lane: str | None = None,
        count: int = 8,
        layout: dict[str, Any] | None = None,
        budgets: dict[str, float] | None = None,
        **options: Any,
    ) -> Deployment:
        cpu = architecture == "cpu"
        kind = {} if cpu else {"kind": KINDS[architecture]}
        return Deployment.model_validate(
            {
                "name": "made",
                "model": "some/model",
                "precision": precision,
                "lane": lane or ("rehearsal" if cpu else "full"),
                "gpus": {**kind, "count": 0 if cpu else count},
                "layout": layout or {"tensor": 2 if cpu else count, "expert": True},
                "options": options,
                "budgets": budgets or {},
            }
        )

    return made
