"""What the model expects of the matrix's cells, and that declared faults move it as declared."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from simulation_world import simulated

from acceptance.judging.bounds import bounds_for
from acceptance.judging.references import find, load_file
from acceptance.load.workloads import Tier, cells
from acceptance.simulation.expected import QUIET, Expected, expected
from acceptance.simulation.faults import Faults, presets

NAMES = ("fp8-8xh200-tp-ep", "fp8-8xh200-dp-ep", "fp4-4xb200-tp-ep", "fp4-4xb200-dp-ep")


def of(name: str, cell_id: str, faults: Faults = QUIET) -> Expected:
    [cell] = [c for c in cells(simulated(name), Tier.FULL) if c.id == cell_id]
    return expected(simulated(name), cell.batch, cell.isl, cell.osl, faults)


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_beyond_physics(name: str) -> None:
    deployment = simulated(name)
    for cell in cells(deployment, Tier.FULL):
        found = expected(deployment, cell.batch, cell.isl, cell.osl)
        limits = bounds_for(deployment, cell.workload, cell.batch, cell.isl, cell.osl)
        for metric, limit in limits.items():
            assert getattr(found, metric) > (limit.lower or 0), (cell.id, metric)


@pytest.mark.parametrize("name", NAMES)
def test_a_server_faster_than_physics_is_beyond_it(name: str) -> None:
    deployment = simulated(name)
    faults = Faults(**presets()["faster-than-physics"].knobs, noise=0)
    [cell] = [c for c in cells(deployment, Tier.FULL) if c.id == "decode-heavy-b16"]
    found = expected(deployment, cell.batch, cell.isl, cell.osl, faults)
    limits = bounds_for(deployment, cell.workload, cell.batch, cell.isl, cell.osl)
    if limits:
        assert found.tpot_mean_ms < (limits["tpot_mean_ms"].lower or 0)


def test_twenty_percent_is_twenty_percent() -> None:
    for cell_id in ("decode-heavy-b1", "decode-heavy-b64"):
        honest = of("fp8-8xh200-tp-ep", cell_id)
        slow = of("fp8-8xh200-tp-ep", cell_id, Faults(noise=0, step=1.2))
        assert slow.tpot_median_ms == pytest.approx(1.2 * honest.tpot_median_ms, rel=0.01)
        assert slow.output_throughput == pytest.approx(honest.output_throughput / 1.2, rel=0.02)


def test_large_cells_queue_where_the_cache_is_small() -> None:
    assert of("fp8-8xh200-tp-ep", "decode-heavy-b512").preemptions > 0
    assert of("fp8-8xh200-dp-ep", "decode-heavy-b64").preemptions == 0


def test_the_matrix_takes_under_fifteen_minutes() -> None:
    """Measured windows with two waves of warm-up, which take as long at most."""
    seconds = 0.0
    for name in NAMES:
        for cell in cells(simulated(name), Tier.FULL):
            found = expected(simulated(name), cell.batch, cell.isl, cell.osl)
            seconds += (2 + cell.repeats) * found.duration_s
    assert seconds < 12 * 60


def test_shipped_references_are_the_models() -> None:
    """And a server 20 % slower is beyond them: by its TPOT at every batch."""
    path = Path(__file__).parents[1] / "tools" / "simulated_references.py"
    tool = runpy.run_path(str(path))
    assert tool["FILE"].read_text(encoding="utf-8") == tool["text"]()
    found = load_file(tool["FILE"])
    for name in NAMES:
        deployment = simulated(name)
        for cell in cells(deployment, Tier.FULL):
            slow = expected(deployment, cell.batch, cell.isl, cell.osl, Faults(noise=0, step=1.2))
            where = {"workload": cell.workload, "batch": cell.nominal}
            limit = find(found, deployment.name, "tpot_mean_ms", **where)
            assert limit is not None
            assert slow.tpot_mean_ms > (limit.reference.limit().upper or 0), cell.id
