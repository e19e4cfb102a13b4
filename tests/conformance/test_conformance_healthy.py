"""Nothing healthy fails: every check, in each of its variants, against the honest twin."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from conformance_world import Check, World, checks, name_of, variants

from fixtures.judging import OptionalSkip
from suites.conformance import test_bad_input, test_limits, test_structured

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = [(check, params) for check in checks() for params in variants(check)]
# What the rehearsal leaves to vLLM.
LEFT_OPEN = {
    "test_live_config.test_kv_cache_dtype",
    "test_live_config.test_gpu_memory_utilization",
    "test_live_config.test_attention_backend",
    "test_live_config.test_moe_backend",
    "test_live_config.test_deep_gemm",
    "test_live_config.test_all2all_backend",
}


def _id(value: object) -> str:
    if callable(value):
        return name_of(value)
    if isinstance(value, dict):
        return "-".join(getattr(v, "name", str(v)) for v in value.values())
    return str(value)


@pytest.mark.parametrize(("check", "params"), CASES, ids=_id)
def test_healthy(
    worlds: Callable[[], World],
    monkeypatch: pytest.MonkeyPatch,
    check: Check,
    params: dict[str, Any],
) -> None:
    world = worlds()
    world.recorded.clear()
    world.shown.clear()
    for module in (test_bad_input, test_limits):  # a loaded host is no fault of the server's
        monkeypatch.setattr(module, "QUICK", 60.0)
    if name_of(check) in LEFT_OPEN:
        with pytest.raises(OptionalSkip, match="leaves"):
            world.run(check, **params)
        return
    world.run(check, **params)
    assert world.recorded or world.shown, "the check told the report nothing"
    short = [one for one in world.shown if one.limit is not None and one.outcome != "PASS"]
    assert not short, short


@pytest.mark.parametrize("name", test_structured.CONSTRAINTS)
def test_weights_that_learned_nothing_are_bound_by_what_ends(world: World, name: str) -> None:
    """They may fill JSON up with white space without end."""
    options = {"reasoning_parser": None, "load_format": "dummy"}
    kept = world.deployment.options.model_copy(update=options)
    world.deployment = world.deployment.model_copy(update={"options": kept})
    endless = name in test_structured.ENDLESS
    with pytest.raises(OptionalSkip, match="learned nothing") if endless else nullcontext():
        world.run(test_structured.test_constraint, name=name)


def test_the_list_of_checks_is_not_empty() -> None:
    assert len(checks()) > 40


def test_every_check_says_what_it_does_not_prove_and_what_it_would_have_caught() -> None:
    for check in checks():
        text = " ".join((check.__doc__ or "").split()).lower()
        assert "does not prove" in text, name_of(check)
        assert "would have caught" in text, name_of(check)
