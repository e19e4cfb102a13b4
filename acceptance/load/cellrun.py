"""One measured cell, with everything needed to say whether it may be judged."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads annotations at run time

from pydantic import Field

from acceptance.judging.judgement import Frozen, Limit, Window
from acceptance.load.capacity import Capacity  # noqa: TC001
from acceptance.load.counters import Counters, growth
from acceptance.load.engine import ClientLoad, LoadEngine
from acceptance.load.result import BenchResult  # noqa: TC001
from acceptance.load.warmup import WarmUp  # noqa: TC001
from acceptance.load.workloads import Cell  # noqa: TC001

SAMPLING = (
    "temperature, top_p and top_k not sent, as in the recipe's command: the model's "
    "generation_config decides (0.6 and 0.95 for DeepSeek-R1)"
)


class NodeLog(Frozen):
    """The log of a node other than the head, and the byte offsets of its lines as log_span has
    those of the head's. node: counts from 1."""

    node: int
    path: Path
    span: tuple[int, int]


class CellRun(Frozen):
    """What one cell measured and how.

    speed_gated: whether its speed is judged at all. ranks: data-parallel engines of the
    deployment. attempt, repeat: count from 1. window: of the measured requests, warm-up and client
    start left out; client_seconds: with the client's start and end. argv: the client's command,
    which never holds the key. server_log, log_span: the server's log (None when attached) and the
    byte offsets of its lines from the end of warm-up to the client's exit; node_logs: the same of
    other nodes. before, after: the
    server's counts at the same moments. capacity: None where the server does not tell it.
    peak_running: requests, read only in a queued cell. bounds: physical limits by metric. others:
    who else was on the server's GPUs meanwhile, for people; empty where nobody was seen.
    """

    cell: Cell
    lane: str
    speed_gated: bool = True
    ranks: int
    attempt: int = 1
    repeat: int = 1
    engine: LoadEngine = LoadEngine.CLI
    client: ClientLoad = ClientLoad()
    window: Window
    client_seconds: float = 0.0
    argv: tuple[str, ...]
    result_file: Path
    client_log: Path
    server_log: Path | None
    log_span: tuple[int, int]
    node_logs: tuple[NodeLog, ...] = ()
    before: Counters
    after: Counters
    capacity: Capacity | None = None
    peak_running: int | None = None
    bounds: dict[str, Limit] = Field(default_factory=dict)
    warmup: WarmUp
    others: str = ""
    result: BenchResult
    sampling: str = SAMPLING

    @property
    def queued(self) -> bool:
        """Whether the batch is larger than what the server can run at once: then requests wait
        for others to end, and only completion and throughput say something of the server."""
        return self.capacity is not None and self.cell.batch > self.capacity.fits

    def growth(self, name: str) -> dict[str, float] | None:
        """How much a counter of the server grew in the cell, per engine; None when unread."""
        return growth(self.before, self.after, name)

    def server_mean_ms(self, histogram: str) -> float | None:
        """Mean that a histogram of the server took up in the cell, ms; None when unread or
        empty. histogram: its name without _sum and _count, in seconds."""
        total, count = self.growth(f"{histogram}_sum"), self.growth(f"{histogram}_count")
        if total is None or count is None or sum(count.values()) <= 0:
            return None
        return 1000 * sum(total.values()) / sum(count.values())


def measured_window(result: BenchResult, started: float, ended: float, offset: float) -> Window:
    """The window of the measured requests, wall clock.

    started, ended: of the client process. offset: wall clock minus CLOCK_MONOTONIC, which Linux
    keeps for all processes alike, so the client's start times can be placed. Where they are not
    given, or lie outside the client's life, its life is the window.
    """
    if result.start_times:
        start = min(result.start_times) + offset
        end = start + result.duration
        if started <= start and end <= ended:
            return Window(start=start, end=end)
    return Window(start=started, end=ended)
