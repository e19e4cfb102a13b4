"""One measured cell, with everything needed to say whether it may be judged."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads annotations at run time

from acceptance.judging.judgement import Frozen, Window
from acceptance.load.counters import Counters, growth
from acceptance.load.result import BenchResult  # noqa: TC001
from acceptance.load.warmup import WarmUp  # noqa: TC001
from acceptance.load.workloads import Cell  # noqa: TC001

SAMPLING = (
    "temperature, top_p and top_k not sent, as in the recipe's command: the model's "
    "generation_config decides (0.6 and 0.95 for DeepSeek-R1)"
)


class CellRun(Frozen):
    """What one cell measured and how.

    ranks: data-parallel engines of the deployment. window: of the measured requests, warm-up and
    client start left out. argv: the client's command, which never holds the key. server_log,
    log_span: the server's log (None when attached) and the byte offsets of its lines from the end
    of warm-up to the client's exit. before, after: the server's counts at the same moments.
    """

    cell: Cell
    lane: str
    ranks: int
    window: Window
    argv: tuple[str, ...]
    exit_code: int
    result_file: Path
    client_log: Path
    server_log: Path | None
    log_span: tuple[int, int]
    before: Counters
    after: Counters
    warmup: WarmUp
    result: BenchResult
    sampling: str = SAMPLING

    def growth(self, name: str) -> dict[str, float] | None:
        """How much a counter of the server grew in the cell, per engine; None when unread."""
        return growth(self.before, self.after, name)


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
