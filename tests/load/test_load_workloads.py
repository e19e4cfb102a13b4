"""The matrix: which cells a deployment runs, at which lengths, with which seeds."""

from __future__ import annotations

import pytest

from acceptance.deployments.schema import Deployment, Lane, Options, Scale
from acceptance.errors import InputError
from acceptance.load.pace import deadline_seconds, expected_seconds
from acceptance.load.workloads import Tier, cell_ids, cells, make_cell, same_as


def scaled(deployment: Deployment, **scale: object) -> Deployment:
    return deployment.model_copy(update={"scale": Scale.model_validate(scale)})


@pytest.fixture
def full(rehearsal: Deployment) -> Deployment:
    update = {"lane": Lane.FULL, "scale": Scale(), "options": Options(max_model_len=65536)}
    return rehearsal.model_copy(update=update)


def test_tiers_have_3_9_and_21_cells(full: Deployment):
    assert [len(cells(full, tier)) for tier in Tier] == [3, 9, 21]
    assert {cell.batch for cell in cells(full, "full")} == {1, 16, 32, 64, 128, 256, 512}
    assert [cell.id for cell in cells(full, "smoke")] == [
        "prompt-heavy-b16",
        "decode-heavy-b16",
        "balanced-b16",
    ]


def test_unscaled_cells_are_the_recipe_s(full: Deployment):
    by_id = {cell.id: cell for cell in cells(full, "gate")}
    lengths = {name: (by_id[name].isl, by_id[name].osl, by_id[name].batch) for name in by_id}
    assert lengths["prompt-heavy-b64"] == (8000, 1000, 64)
    assert lengths["decode-heavy-b1"] == (1000, 8000, 1)
    assert lengths["balanced-b16"] == (1000, 1000, 16)


def test_scaling_keeps_nominal_ids_and_least_sizes(rehearsal: Deployment):
    cell = make_cell(scaled(rehearsal, length=0.001, batch=0.01), "balanced-b16")
    assert (cell.id, cell.nominal) == ("balanced-b16", 16)
    assert (cell.batch, cell.isl, cell.osl) == (1, 8, 2)


def test_cells_made_equal_by_scaling_run_once(rehearsal: Deployment):
    small = scaled(rehearsal, length=0.1, batch=0.02)  # 1, 16, 32 and 64 become one request
    found = [cell.id for cell in cells(small, "full") if cell.workload == "balanced"]
    assert found == ["balanced-b1", "balanced-b128", "balanced-b256", "balanced-b512"]
    assert same_as(small, "full", "balanced-b64") == "balanced-b1"
    assert same_as(small, "full", "balanced-b128") is None
    assert same_as(small, "smoke", "balanced-b16") is None


def test_cells_that_exceed_the_model_length_are_refused(rehearsal: Deployment):
    short = rehearsal.model_copy(update={"options": Options(max_model_len=899)})
    with pytest.raises(InputError, match=r"prompt-heavy-b1.*900 tokens, max_model_len is 899"):
        cells(short, "gate")
    fits = rehearsal.model_copy(update={"options": Options(max_model_len=900)})
    assert len(cells(fits, "gate")) == 9
    unlimited = rehearsal.model_copy(update={"options": Options()})
    assert len(cells(unlimited, "gate")) == 9


def test_seeds_are_fixed_and_differ_per_cell_and_deployment(full: Deployment):
    other = full.model_copy(update={"name": "rehearsal-tp-ep"})
    seeds = [cell.seed for d in (full, other) for cell in cells(d, "full")]
    assert len(set(seeds)) == 42
    assert seeds == [cell.seed for d in (full, other) for cell in cells(d, "full")]
    assert all(0 <= seed < 2**31 for seed in seeds)
    # Across sessions and machines too, so a known value:
    assert make_cell(other, "prompt-heavy-b16").seed == 977365580


@pytest.mark.parametrize("bad", ["", "b16", "balanced", "balanced-b0", "balanced-bx", "odd-b16"])
def test_unknown_cells_are_refused(full: Deployment, bad: str):
    with pytest.raises(InputError, match="no cell is called"):
        make_cell(full, bad)


def test_ids_of_an_unknown_tier_are_refused():
    assert len(cell_ids(Tier.FULL)) == 21
    with pytest.raises(ValueError, match="huge"):
        cell_ids("huge")


def test_expected_time_grows_with_batch_and_length_and_the_deadline_exceeds_it(full: Deployment):
    by_id = {cell.id: expected_seconds(full, cell) for cell in cells(full, "full")}
    assert by_id["balanced-b1"] < by_id["balanced-b64"] < by_id["balanced-b512"]
    assert by_id["balanced-b16"] < by_id["prompt-heavy-b16"] < by_id["decode-heavy-b16"]
    for cell in cells(full, "full"):
        assert deadline_seconds(full, cell) > 2 * by_id[cell.id]
