"""One data-parallel rank asked by name, and whether it was that one which answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.correctness.scoring import Scored, score
from acceptance.errors import ObservationError
from acceptance.serving.metrics import Metrics, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx

HEADER = "X-data-parallel-rank"
COUNTER = "vllm:prompt_tokens_total"


@dataclass(frozen=True)
class OfRank:
    """engines: prompt tokens that each engine counted meanwhile, by number."""

    rank: int
    scored: list[Scored]
    engines: dict[str, float]


def score_rank(
    http: httpx.Client, model: str, prompts: Mapping[str, Sequence[int]], rank: int
) -> OfRank:
    """Scores the prompts on one rank. Raises ObservationError."""
    before = counted(http)
    scored = score(http, model, prompts, headers={HEADER: str(rank)})
    after = counted(http)
    return OfRank(rank, scored, {e: after[e] - before.get(e, 0.0) for e in after})


def counted(http: httpx.Client, name: str = COUNTER) -> dict[str, float]:
    """A counter by engine. Raises ObservationError where it cannot be read."""
    return metrics(http).by_engine(name)


def cache_labels(http: httpx.Client) -> list[dict[str, str]]:
    """vllm:cache_config_info, one set of labels for each engine."""
    return metrics(http).labels("vllm:cache_config_info")


def metrics(http: httpx.Client) -> Metrics:
    """/metrics, read by this client. Raises ObservationError."""
    answer = http.get("/metrics")
    if answer.status_code != 200:
        raise ObservationError(f"/metrics answered {answer.status_code}", asked="GET /metrics")
    return parse(answer.text)


def asked_ranks(answers: Iterable[OfRank]) -> list[int]:
    """The ranks that did all the work of their own turn, by the engines' counters."""
    return [
        answer.rank
        for answer in answers
        if answer.engines.get(str(answer.rank), 0) > 0
        and sum(answer.engines.values()) == answer.engines[str(answer.rank)]
    ]
