"""What is derived from a deployment: labels, markers, digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from acceptance.deployments.layout import Layout
from acceptance.deployments.schema import Deployment, Expected

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Deployment]

LAYOUTS = [
    (Layout(tensor=8, expert=True), 8, "tp8+ep", "tp8-ep", "tp_ep"),
    (Layout(data=8, expert=True), 8, "dp8+ep", "dp8-ep", "dp_ep"),
    (Layout(tensor=2, expert=True), 2, "tp2+ep", "tp2-ep", "tp_ep"),
    (Layout(tensor=4, data=2, expert=True), 8, "tp4+dp2+ep", "tp4-dp2-ep", "dp_ep"),
    (Layout(expert=True), 1, "tp1+ep", "ep", "tp_ep"),
    (Layout(tensor=8), 8, "tp8", "tp8", None),
    (Layout(), 1, "tp1", "", None),
    (Layout(data=16, expert=True, nodes=2), 16, "dp16+ep, 2 nodes", "dp16-ep", "dp_ep"),
    (Layout(tensor=8, pipeline=2, nodes=2), 16, "tp8+pp2, 2 nodes", "tp8-pp2", None),
]


@pytest.mark.parametrize(("layout", "ranks", "label", "fingerprint", "marker"), LAYOUTS)
def test_layouts(
    layout: Layout, ranks: int, label: str, fingerprint: str, marker: str | None
) -> None:
    assert layout.ranks == ranks
    assert layout.label == label
    assert layout.fingerprint == fingerprint
    assert layout.marker == marker


def test_markers(make: Make) -> None:
    assert make("hopper", "fp8").markers == {"fp8", "tp_ep", "hopper", "full"}
    assert make("blackwell", "fp4", lane="slice").markers == {"fp4", "tp_ep", "blackwell", "slice"}
    assert make("cpu", "bf16").markers == {"bf16", "tp_ep", "cpu", "rehearsal"}
    assert make(layout={"tensor": 8}).markers == {"fp8", "hopper", "full"}


def test_answers_mean_something_where_weights_do(make: Make) -> None:
    assert make().trained
    assert make("cpu", "bf16").trained
    assert not make(lane="slice", load_format="dummy").trained
    assert make(lane="slice").trained
    assert not make(lane="simulated").trained


def test_the_digest_is_of_what_is_served_and_judged(make: Make) -> None:
    deployment = make()
    assert len(deployment.digest) == 12
    assert deployment.digest == make().digest
    assert deployment.digest != make(max_model_len=4096).digest
    assert deployment.digest != make(budgets={"start": 10.0}).digest
    prose = {"source": "elsewhere", "expected_minutes": Expected(start=1.0, cell=1.0)}
    assert deployment.model_copy(update=prose).digest == deployment.digest


def test_deployments_are_not_changed(make: Make) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make().name = "other"
