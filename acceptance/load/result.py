"""The JSON that `vllm bench serve --save-result --save-detailed` writes, read strictly.

Keys as of vLLM 0.32 (vllm/benchmarks/serve.py). Scalars are in ms, lists in seconds, one entry a
request in the order they were sent. Times are of the client's CLOCK_MONOTONIC.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from acceptance.errors import ObservationError

if TYPE_CHECKING:
    from pathlib import Path


class Latency(BaseModel):
    """Statistics of one latency over all requests, ms."""

    model_config = ConfigDict(frozen=True)

    mean: float
    median: float
    std: float
    p99: float


class BenchResult(BaseModel):
    """One run of the tool. Keys it does not know are ignored (versions add some); one that is
    missing is an error, and so is a number that is none. ttft, tpot, itl, e2el: see Latency."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    num_prompts: int
    completed: int
    failed: int
    duration: float
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    request_goodput: float | None = None
    ttft: Latency
    tpot: Latency
    itl: Latency
    e2el: Latency
    input_lens: tuple[int, ...]
    output_lens: tuple[int, ...]
    ttfts: tuple[float, ...]
    latencies: tuple[float, ...]
    start_times: tuple[float, ...] = ()
    errors: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: Any) -> Any:
        """Flat `mean_ttft_ms` keys to one Latency each; end-to-end latencies of versions that
        did not write them, from the gaps between chunks."""
        if not isinstance(raw, dict) or "ttft" in raw:
            return raw
        data = dict(raw)
        for name in ("ttft", "tpot", "itl", "e2el"):
            keys = {part: f"{part}_{name}_ms" for part in ("mean", "median", "std", "p99")}
            for key in keys.values():
                if key not in data:
                    raise ValueError(f"no key {key}")
            data[name] = {part: data[key] for part, key in keys.items()}
        if "latencies" not in data and "itls" in data and "ttfts" in data:
            try:
                data["latencies"] = [
                    first + sum(gaps)
                    for first, gaps in zip(data["ttfts"], data["itls"], strict=False)
                ]
            except TypeError:
                raise ValueError("itls are no lists of gaps beside ttfts") from None
        return data

    def _good(self) -> list[int]:
        return [i for i, length in enumerate(self.output_lens) if length > 0]

    def good_ttfts(self) -> tuple[float, ...]:
        """Seconds to the first token of every request that gave tokens."""
        return tuple(self.ttfts[i] for i in self._good())

    def good_latencies(self) -> tuple[float, ...]:
        """Seconds from sending to the last token of every request that gave tokens."""
        return tuple(self.latencies[i] for i in self._good())

    def good_tpots(self, single: float | None = None) -> tuple[float, ...]:
        """Seconds per output token after the first, of every request that gave tokens. single:
        what stands for requests of one token, which have none; None leaves them out."""
        tpots = []
        for i in self._good():
            if self.output_lens[i] > 1:
                decode = self.latencies[i] - self.ttfts[i]
                tpots.append(decode / (self.output_lens[i] - 1))
            elif single is not None:
                tpots.append(single)
        return tuple(tpots)


def read_result(path: Path) -> BenchResult:
    """Reads the tool's file. Raises ObservationError naming the file and the missing or malformed
    key; a missing number is never taken for zero."""
    asked = f"the result of vllm bench serve, {path.name}"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ObservationError(
            "the benchmark ended without writing its result", asked=asked
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise ObservationError(
            "the benchmark's result is not JSON", asked=asked, cause=str(error)
        ) from error
    try:
        result = BenchResult.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"][:1]) or "its keys"
        raise ObservationError(
            f"the benchmark's result cannot be read at {key}: {first['msg']}",
            asked=asked,
            hint="another version of vLLM may write other keys",
        ) from error
    lists = (result.input_lens, result.output_lens, result.ttfts, result.latencies, result.errors)
    if len({len(entries) for entries in lists}) != 1 or result.duration <= 0:
        raise ObservationError(
            "the benchmark's result contradicts itself: per-request lists of lengths "
            f"{[len(entries) for entries in lists]}, duration {result.duration} s",
            asked=asked,
        )
    return result
