"""What lies beside a cell's judgements: the server's own counts, what made the cell valid, and the
command that repeats it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acceptance.load.counters import (
    CACHE_HITS,
    SERVER_ITL,
    SERVER_TTFT,
    SUCCEEDED,
    Counters,
    growth,
)
from acceptance.serving.metrics import GENERATED
from reports.text import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from reports.schema import JudgementRecord

_FILE_LIMIT = 1 << 20  # bytes of a file beside a cell


@dataclass(frozen=True)
class ServerSide:
    """One number as the client and the server saw it; None where one did not."""

    name: str
    unit: str
    client: float | None
    server: float | None


def beside_of(run_dir: Path | None, evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """What was written beside each repeat's result, where it is still there."""
    names = evidence.get("results") or [evidence.get("result")]
    found = []
    for name in names if isinstance(names, list) and run_dir is not None else []:
        if not isinstance(name, str) or not re.fullmatch(r"cells/[\w.+-]+\.json", name):
            continue
        assert run_dir is not None
        file = (run_dir / name).with_suffix(".run.json")
        try:
            if file.stat().st_size <= _FILE_LIMIT:
                told = json.loads(file.read_text(encoding="utf-8"))
                found += [told] if isinstance(told, dict) else []
        except (OSError, ValueError):
            continue
    return found


def server_sides(
    last: dict[str, JudgementRecord], beside: Sequence[dict[str, Any]]
) -> Iterable[ServerSide]:
    """The client's numbers and the server's own, over all repeats."""
    readings = []
    for one in beside:
        try:
            before, after = (Counters.model_validate(one[name]) for name in ("before", "after"))
        except (KeyError, ValueError):
            return
        readings.append((before, after))
    if not readings:
        return

    def grown(name: str) -> float | None:
        parts = [growth(before, after, name) for before, after in readings]
        whole = [sum(part.values()) for part in parts if part is not None]
        return sum(whole) if len(whole) == len(parts) else None

    def mean_ms(histogram: str) -> float | None:
        total, count = grown(f"{histogram}_sum"), grown(f"{histogram}_count")
        return 1000 * total / count if total is not None and count else None

    def client(metric: str, times: float = 1.0) -> float | None:
        record = last.get(metric)
        value = record.judgement.measurement.value if record else None
        return float(value) * times if isinstance(value, int | float) else None

    repeats = float(len(readings))
    yield ServerSide("TTFT, mean", "ms", client("ttft_mean_ms"), mean_ms(SERVER_TTFT))
    yield ServerSide("ITL, mean", "ms", client("itl_mean_ms"), mean_ms(SERVER_ITL))
    tokens = client("generated_tokens", repeats)
    yield ServerSide("Generated tokens", "tokens", tokens, grown(GENERATED))
    requests = client("successful_requests", repeats)
    yield ServerSide("Finished requests", "requests", requests, grown(SUCCEEDED))
    yield ServerSide("Prompt tokens from the prefix cache", "tokens", None, grown(CACHE_HITS))


def command_of(beside: dict[str, Any]) -> str:
    return shlex.join(str(word) for word in beside["argv"])


def told_of(evidence: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What made the cell valid, for a person."""
    client = evidence.get("client")
    client = client if isinstance(client, dict) else {}
    waves = evidence.get("warm_up_waves_s")
    if isinstance(waves, list) and waves:
        steady = "steady" if evidence.get("warm_up_steady") else "not steady"
        told = ", ".join(duration(float(wave)) for wave in waves)
        yield "Warm-up waves", f"{told}; {steady}"
    if (lag := client.get("lag_p99_ms")) is not None:
        yield "Client's event loop late by", f"{lag:.1f} ms (P99)"
    if (share := client.get("cpu_share")) is not None:
        yield "Client's CPU", f"{share:.0%} of a core"
    if (preempted := evidence.get("preemptions")) is not None:
        yield "Preemptions", f"{preempted:g}"
    if (fits := evidence.get("runs_at_once")) is not None:
        queued = "; the batch queues" if evidence.get("queued") else ""
        yield "Requests that can run at once", f"{fits}{queued}"
    for name, label in (("statistic", "Taken"), ("load_engine", "Client")):
        if evidence.get(name):
            yield label, str(evidence[name])
    seeds = evidence.get("seeds") or [evidence.get("seed")]
    if seeds != [None]:
        yield "Seeds of the prompts", ", ".join(map(str, seeds))
    unseen = evidence.get("unobserved_rules")
    yield "Rules not observed", ", ".join(map(str, unseen)) if unseen else "none"
