"""What the conformance tests share: the live configuration, read once."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from acceptance.serving.differences import Comparison, compare
from acceptance.serving.live import LiveConfig, read_live
from fixtures.selection import area_of, deployment_of
from suites.conformance.asking import Answers

if TYPE_CHECKING:
    import httpx

    from acceptance.serving.server import Server

FIRST = "test_live_config.py"
# What may end a server, and what looks back on all that was asked.
LAST = ("test_bad_input.py", "test_fuzz.py", "test_leaving.py", "test_log.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a deployment's conformance, whether it is the right server at all comes first; what is
    meant to do it harm comes last, and after it what its log says of all that."""
    ordered: list[pytest.Item] = []
    for (area, _), group in groupby(items, key=lambda i: (area_of(i), deployment_of(i))):
        turn = _turn if area == "conformance" else _as_it_is
        ordered += sorted(group, key=turn)
    items[:] = ordered


def _as_it_is(_: pytest.Item) -> int:
    return 0


def _turn(item: pytest.Item) -> int:
    name = item.path.name
    return 0 if name == FIRST else 2 + LAST.index(name) if name in LAST else 1


@pytest.fixture(scope="session")
def live(server: Server) -> LiveConfig:
    """What the server says it is."""
    return read_live(server)


@pytest.fixture(scope="session")
def comparisons(server: Server, live: LiveConfig) -> dict[str, Comparison]:
    """Everything that was asked of the server, against what it says, by name."""
    installed = None if server.attached else server.version
    found = compare(server.deployment, server.profile, live, installed)
    return {comparison.name: comparison for comparison in found}


@pytest.fixture(scope="session")
def max_model_len(server: Server, live: LiveConfig) -> int:
    """The longest request in tokens, prompt and output, as /v1/models says; test_live_config
    holds it against the one asked for."""
    lengths = {model.id: model.max_model_len for model in live.models}
    length = lengths.get(server.model)
    assert length, f"/v1/models tells no max_model_len of {server.model}"
    return length


@pytest.fixture(scope="session")
def answers(
    server: Server, http: httpx.Client, one_address: httpx.Client, max_model_len: int
) -> Answers:
    """What the server says to the requests that the checks share."""
    return Answers(http, server, max_model_len, one_address)
