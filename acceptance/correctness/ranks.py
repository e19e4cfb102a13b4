"""One data-parallel rank asked by name, and whether it was that one which answered."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.correctness.scoring import Scored, score
from acceptance.errors import ObservationError
from acceptance.serving.addresses import bases_of, metrics_of
from acceptance.serving.client import client
from acceptance.serving.metrics import Metrics, merged, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx

    from acceptance.serving.server import Server

HEADER = "X-data-parallel-rank"
COUNTER = "vllm:prompt_tokens_total"


@dataclass(frozen=True)
class OfRank:
    """engines: prompt tokens that each engine counted meanwhile, by number."""

    rank: int
    scored: list[Scored]
    engines: dict[str, float]


def score_rank(
    http: httpx.Client, server: Server, prompts: Mapping[str, Sequence[int]], rank: int
) -> OfRank:
    """Scores the prompts on one rank, counted over all addresses. Raises ObservationError.

    The client of a server with several addresses takes no turns here: each of them knows its own
    ranks only, and counts them from 0.
    """
    bases, before = bases_of(server), counted(http, server)
    each = max(1, server.deployment.layout.data // len(bases))
    with ExitStack() as stack:
        asked = http
        if len(bases) > 1:
            url = bases[rank // each % len(bases)]
            timeout = 4 * server.deployment.budgets.request
            asked = stack.enter_context(client(server, timeout, at=url))
        local = rank % each if len(bases) > 1 else rank
        scored = score(asked, server.model, prompts, headers={HEADER: str(local)})
    after = counted(http, server)
    return OfRank(rank, scored, {e: after[e] - before.get(e, 0.0) for e in after})


def counted(http: httpx.Client, server: Server, name: str = COUNTER) -> dict[str, float]:
    """A counter by engine. Raises ObservationError where it cannot be read."""
    return metrics(http, server).by_engine(name)


def cache_labels(http: httpx.Client, server: Server) -> list[dict[str, str]]:
    """vllm:cache_config_info, one set of labels for each engine."""
    return metrics(http, server).labels("vllm:cache_config_info")


def metrics(http: httpx.Client, server: Server) -> Metrics:
    """/metrics of all addresses, read by this client. Raises ObservationError."""
    readings = {}
    for url in metrics_of(server):
        answer = http.get(f"{url}/metrics")
        if answer.status_code != 200:
            raise ObservationError(f"/metrics answered {answer.status_code}", asked=str(answer.url))
        readings[url] = parse(answer.text)
    return merged(readings)


def asked_ranks(answers: Iterable[OfRank], *, named: bool = True) -> list[int]:
    """The ranks that did all the work of their own turn, by the engines' counters. named: whether
    engines are called by the number that was asked for; else each turn must be another engine's,
    whatever it is called."""
    found: dict[str, int] = {}
    for answer in answers:
        busy = [engine for engine, tokens in answer.engines.items() if tokens > 0]
        if len(busy) == 1 and busy[0] not in found and (not named or busy[0] == str(answer.rank)):
            found[busy[0]] = answer.rank
    return list(found.values())
