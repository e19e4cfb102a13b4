"""A server that is not the one asked for: its differences are told, and nothing else is run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.errors import ServerError
from fixtures import unasked

if TYPE_CHECKING:
    from conformance_world import World

TOLD_BY = "suites/conformance/test_live_config.py"
SKIPPED = "not run: the server is not what was asked for (layout: asked tp2-ep, it says dp2-ep)"
OTHER = "suites/performance/test_matrix.py"


class Run:
    """A session with tests in these files, all of one deployment."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, *files: str) -> None:
        self.config: Any = SimpleNamespace(stash={unasked.UNASKED: {}})
        self.server = world.server
        name = self.server.deployment.name
        monkeypatch.setattr(unasked, "deployment_of", lambda _: name)
        self.items: list[Any] = [
            SimpleNamespace(path=Path(file), config=self.config) for file in files
        ]

    def hold(self) -> None:
        unasked.hold_against_wish(self.config, self.server, self.items)

    def runs(self) -> list[str]:
        """The files whose tests would run now."""
        why = {str(item.path): _why_not(item) for item in self.items}
        assert set(filter(None, why.values())) <= {SKIPPED}
        return [file for file, reason in why.items() if not reason]


def _why_not(item: Any) -> str:
    try:
        unasked.pytest_runtest_setup(item)
    except pytest.skip.Exception as skip:
        return str(skip)
    return ""


def wrong(world: World) -> None:
    """DP where TP was asked for, by the fingerprint alone."""
    world.log = None
    world.twin.fingerprint = "vllm-0.32.0-dp2-ep-0a1b2c3d"


def test_the_right_server_runs_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(world, monkeypatch, TOLD_BY, OTHER)
    run.hold()
    assert run.runs() == [TOLD_BY, OTHER]


@pytest.mark.parametrize("launched", [True, False])
def test_only_its_differences_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch, launched: bool
) -> None:
    wrong(world)
    world.launched = launched
    run = Run(world, monkeypatch, TOLD_BY, OTHER)
    run.hold()
    assert run.runs() == [TOLD_BY]


def test_where_no_test_tells_it_the_server_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong(world)
    run = Run(world, monkeypatch, OTHER)
    with pytest.raises(ServerError, match="not what was asked for") as caught:
        run.hold()
    assert "layout: asked tp2-ep, it says dp2-ep" in caught.value.cause
    assert run.runs() == []


def test_what_cannot_be_seen_is_no_difference(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.log = None
    assert unasked.unasked(world.server) is None
    world.twin.stop()
    assert unasked.unasked(world.server) is None, "its tests say that it does not answer"
