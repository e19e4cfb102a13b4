"""Ranks that are asked by name, at one address or at several that each count from 0."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx

from acceptance.correctness import ranks
from acceptance.correctness.ranks import OfRank, asked_ranks, score_rank
from acceptance.serving.addresses import Addresses

if TYPE_CHECKING:
    import pytest

A, B = "http://a:1", "http://b:1"


def turn(rank: int, **engines: float) -> OfRank:
    return OfRank(rank, [], {name.lstrip("e"): tokens for name, tokens in engines.items()})


def test_a_rank_answers_for_itself_and_another_for_nobody() -> None:
    turns = [turn(0, e0=5, e1=0), turn(1, e0=5, e1=0), turn(2, e1=3, e2=4)]
    assert asked_ranks(turns) == [0]
    assert asked_ranks(turns, named=False) == [0]
    crossed = [turn(0, e0=0, e1=5), turn(1, e0=5, e1=0)]
    assert asked_ranks(crossed) == []
    assert asked_ranks(crossed, named=False) == [0, 1]


def test_each_address_is_asked_for_its_own_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def scored(http: httpx.Client, *_: object, headers: dict[str, str]) -> list[Any]:
        asked.append((str(http.base_url).rstrip("/"), headers[ranks.HEADER]))
        return []

    monkeypatch.setattr(ranks, "score", scored)
    monkeypatch.setattr(ranks, "counted", lambda *_: {})
    deployment = SimpleNamespace(
        layout=SimpleNamespace(data=4), budgets=SimpleNamespace(request=1.0)
    )
    server: Any = SimpleNamespace(
        base_url=A, api_key="", model="m", deployment=deployment, several=None
    )
    with httpx.Client(base_url=A) as http:
        for rank in range(4):
            score_rank(http, server, {}, rank)
        server.several = Addresses((A, B))
        for rank in range(4):
            score_rank(http, server, {}, rank)
    assert asked[:4] == [(A, "0"), (A, "1"), (A, "2"), (A, "3")]
    assert asked[4:] == [(A, "0"), (A, "1"), (B, "0"), (B, "1")]
