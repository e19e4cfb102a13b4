"""The server's own numbers, from /metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from acceptance.errors import ObservationError
from acceptance.serving.addresses import metrics_of, short
from acceptance.serving.client import client

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Reads /metrics once, of every address that has some. timeout: seconds, of each. Raises
    ObservationError when one of them cannot be read: a part is not the whole."""
    return merged({url: _read(server, url, timeout) for url in metrics_of(server)})


def _read(server: Endpoint, url: str, timeout: float) -> Metrics:
    asked = f"{url}/metrics"
    try:
        with client(server, timeout, at=url) as http:
            answer = http.get("/metrics")
        answer.raise_for_status()
    except httpx.HTTPError as error:
        where = "" if url == server.base_url else f" at {short(url)}"
        raise ObservationError(
            f"/metrics could not be read{where}: {error!r}", asked=asked
        ) from error
    return parse(answer.text)


def merged(readings: Mapping[str, Metrics]) -> Metrics:
    """Readings of several addresses as one of all engines. A number that engines of two addresses
    have is no name: each is then told as number@host:port."""
    if len(readings) == 1:
        return next(iter(readings.values()))
    known = Counter(
        engine
        for metrics in readings.values()
        for engine in {sample.labels.get("engine") for sample in metrics.samples}
    )
    return Metrics(
        tuple(
            _named(sample, url) if known[sample.labels.get("engine")] > 1 else sample
            for url, metrics in readings.items()
            for sample in metrics.samples
        )
    )


def _named(sample: Sample, url: str) -> Sample:
    """The same with its address in its engine's name; what is of no engine stays as it is."""
    engine = sample.labels.get("engine")
    if engine is None:
        return sample
    return replace(sample, labels={**sample.labels, "engine": f"{engine}@{short(url)}"})


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
