"""Connecting to a cluster, or making one: tokens, and at which priority agents run. Without Ray."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cluster_world import OutOfReach

from acceptance.cluster import connect as connecting
from acceptance.cluster.connect import NICENESS, connect, own_cluster
from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@pytest.fixture
def initialises(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Has Ray's init() be another."""

    def instead(init: Callable[..., None]) -> None:
        ray: Any = SimpleNamespace(init=init, exceptions=SimpleNamespace(RayError=OutOfReach))
        monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
        monkeypatch.setattr(connecting, "_ray", lambda: ray)

    return instead


@pytest.mark.parametrize("error", [ConnectionError("no answer"), OutOfReach("no token was found")])
def test_a_cluster_that_does_not_answer_may_ask_for_a_token(
    initialises: Callable[[Callable[..., None]], None], error: Exception
) -> None:
    def init(**_: object) -> None:
        raise error

    initialises(init)
    with pytest.raises(InputError, match=f"no Ray cluster answers: {error}") as refused:
        connect("auto")
    assert all(name in refused.value.hint for name in TOKEN)


@pytest.mark.parametrize("given", [None, "disabled"])
def test_a_cluster_of_its_own_has_a_token_of_its_own(
    initialises: Callable[[Callable[..., None]], None],
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
) -> None:
    """Unless the site has said how it is to be."""
    seen: dict[str, str | None] = {}
    initialises(lambda **_: seen.update({one: os.environ.get(one) for one in (*TOKEN, NICENESS)}))
    with monkeypatch.context() as patch:
        for name in (*TOKEN, NICENESS):
            patch.setenv(name, "of before")  # so that it is as before in the end
            patch.delenv(name)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        if given:
            patch.setenv(TOKEN[0], given)
        own_cluster(1, {})
    mode, token = (seen[name] for name in TOKEN)
    assert (mode, token is None) == (given or "token", given is not None)
    assert token is None or len(token) >= 32
    assert seen[NICENESS] == "0"  # Ray's own 15 would have others' work go first
