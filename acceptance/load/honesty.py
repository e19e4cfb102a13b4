"""Validity of speed: whether the client could see what it timed, and whether it can be true.

Rules of validity.py that guard nothing but speed. Each returns what breaks it, for a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.deployments.schema import Lane
from acceptance.load.counters import SERVER_ITL, SERVER_TTFT, SIMULATED_LATE
from acceptance.load.engine import LoadEngine

if TYPE_CHECKING:
    from acceptance.load.cellrun import CellRun

CLIENT_CPU = 0.9  # of a core
LAG_SHARE = 0.1  # of the shorter of TTFT and decoding time
LAG_SLACK = 5.0  # ms
# Of the server's mean: how much later the client may be, as a share and in ms. Its TTFT holds the
# way there and the server's tokenizing, for which the prompts of a burst wait in line.
TTFT_APART = (0.2, 50.0)
ITL_APART = (0.05, 1.0)
EARLY, EARLY_SLACK = 0.05, 1.0  # how much earlier, by roundings alone
# Of the client's mean TTFT, and in ms: how late a simulated server may send its first tokens. It is
# what the limits on a simulated TTFT have room for; see tests/tools/simulated_references.py.
SIMULATED_SHARE, SIMULATED_SLACK = 0.02, 4.0


def client_saturated(run: CellRun) -> str:
    """The client had time to see the answers when they came: its loop is late by at most a small
    part of what it times, and its thread is not busy all the time."""
    client, result = run.client, run.result
    said = []
    timed = min(result.ttft.mean, result.e2el.mean - result.ttft.mean or result.ttft.mean)
    if client.lag_p99_ms is not None and client.lag_p99_ms > max(LAG_SLACK, LAG_SHARE * timed):
        said.append(
            f"event loop late by {client.lag_p99_ms:.1f} ms (P99; at most {client.lag_max_ms:.1f})"
            f", while it timed {timed:.1f} ms"
        )
    # The Rust client has more than one thread.
    busy = client.cpu_share if run.engine is not LoadEngine.RUST else None
    if busy is not None and busy > CLIENT_CPU:
        said.append(f"the client used {busy:.0%} of a core")
    return "; ".join(said)


def server_histograms(run: CellRun) -> str:
    """The server's own TTFT and inter-token latency agree with the client's. The server cannot be
    slower than what the client saw; what the client adds is network and its own delay."""
    result, said = run.result, []
    tokens = sum(length - 1 for length in result.output_lens if length > 1)
    whole = tokens == run.cell.batch * (run.cell.osl - 1)  # else a time has not its tokens
    decoding = sum(a - b for a, b in zip(result.latencies, result.ttfts, strict=True))
    for histogram, client, share, slack in (
        (SERVER_TTFT, result.ttft.mean, *TTFT_APART),
        (SERVER_ITL, 1000 * decoding / tokens if whole and tokens else 0.0, *ITL_APART),
    ):
        server = run.server_mean_ms(histogram)
        if not client:
            continue
        if server is None:
            said.append(f"the server's {histogram} could not be read")
        elif not (1 - EARLY) * server - EARLY_SLACK <= client <= (1 + share) * server + slack:
            said.append(f"{histogram}: mean {server:.2f} ms at the server, {client:.2f} ms here")
    return "; ".join(said)


def simulation_late(run: CellRun) -> str:
    """A simulated server kept its own schedule: where others took the cores from it, what the
    client saw is no number of the latency model's."""
    if run.lane != Lane.SIMULATED:
        return ""
    late, ttft = run.server_mean_ms(SIMULATED_LATE), run.result.ttft.mean
    if late is None:
        return f"the server's {SIMULATED_LATE} could not be read" if run.result.completed else ""
    allowed = SIMULATED_SLACK + SIMULATED_SHARE * ttft
    if late <= allowed:
        return ""
    return (
        f"first tokens were sent {late:.1f} ms after the simulation's own schedule on average, "
        f"{allowed:.1f} ms allowed"
    )


def beyond_physics(run: CellRun) -> str:
    """Nothing is faster than memory and arithmetic allow: such a number was not measured, or the
    work was not done."""
    said = []
    for metric, limit in run.bounds.items():
        name, statistic = metric.removesuffix("_ms").split("_")
        value: float = getattr(getattr(run.result, name), statistic)
        if run.result.completed and limit.lower is not None and value < limit.lower:
            said.append(f"{metric} {value:.4g} ms, not possible below {limit.lower:.4g} ms")
    return "; ".join(said)
