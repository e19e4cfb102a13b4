"""The server's own numbers, from /metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from acceptance.errors import ObservationError
from acceptance.serving.client import client

GENERATED = "vllm:generation_tokens_total"


class Endpoint(Protocol):
    """Anything with an address and a key."""

    @property
    def base_url(self) -> str: ...

    @property
    def api_key(self) -> str: ...


@dataclass(frozen=True)
class Sample:
    """One Prometheus sample."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Metrics:
    """One reading of /metrics. Asking for a metric that is not there raises ObservationError:
    an absent counter is not a zero."""

    samples: tuple[Sample, ...]

    def named(self, name: str) -> list[Sample]:
        """Every sample of this exact name (counters end in _total)."""
        found = [sample for sample in self.samples if sample.name == name]
        if not found:
            raise ObservationError(f"the server exports no metric {name}", asked="GET /metrics")
        return found

    def sum(self, name: str) -> float:
        """Sum over all label sets, engines included."""
        return sum(sample.value for sample in self.named(name))

    def by_engine(self, name: str) -> dict[str, float]:
        """Sum per data-parallel engine; engine numbers are strings as in the label."""
        engines: dict[str, float] = {}
        for sample in self.named(name):
            engine = sample.labels.get("engine", "0")
            engines[engine] = engines.get(engine, 0.0) + sample.value
        return engines

    def labels(self, name: str) -> list[dict[str, str]]:
        """The label sets, for info metrics such as vllm:cache_config_info (one per engine)."""
        return [sample.labels for sample in self.named(name)]


def scrape(server: Endpoint, timeout: float = 10.0) -> Metrics:
    """Reads /metrics once. timeout: seconds. Raises ObservationError when it cannot be read."""
    url = f"{server.base_url}/metrics"
    try:
        with client(server, timeout) as http:
            answer = http.get("/metrics")
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ObservationError(f"/metrics could not be read: {error!r}", asked=url) from error
    return parse(answer.text)


def parse(text: str) -> Metrics:
    """Prometheus text exposition to Metrics. Raises ObservationError on malformed text."""
    try:
        return Metrics(
            tuple(
                Sample(sample.name, dict(sample.labels), float(sample.value))
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            )
        )
    except ValueError as error:
        raise ObservationError(f"/metrics is malformed: {error}") from error
