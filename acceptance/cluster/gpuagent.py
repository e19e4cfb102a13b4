"""What an agent does besides where its part takes GPUs: it holds them, and has them sampled.

They are its process's and its part's: leases and sampler end with both, however that comes about.
"""

from __future__ import annotations

import secrets
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acceptance.cluster.agent import CHUNK, Agent, guarded
from acceptance.gpus.held import Held, hold
from acceptance.serving.processes import OWNER, this_process

if TYPE_CHECKING:
    from acceptance.gpus.held import Found, Returned, Wanted


@dataclass(frozen=True)
class Sampled:
    """text: telemetry from the offset that was asked for. ended: the sampler's exit code, None
    while it lives."""

    text: bytes
    ended: int | None


class GpuAgent(Agent):
    """An agent of a node with GPUs. Ray's CUDA_VISIBLE_DEVICES says which are this agent's."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._held: Held | None = None
        self._holding = ExitStack()

    @property
    def hold(self) -> tuple[int, ...]:
        return self._held.lease.fds if self._held is not None else ()

    @property
    def engaged(self) -> bool:
        return super().engaged or self._held is not None

    def lease(self, wanted: Wanted, ahead: float) -> Found:
        """Leases, examines and samples GPUs of this node. ahead: seconds by which its clock is
        ahead of the driver's. Raises AcceptanceError; nothing is held then."""
        self._hear()
        folder = Path(tempfile.mkdtemp(prefix="acceptance-gpus-"))
        mark = f"{OWNER}={this_process()}"
        with ExitStack() as stack:
            # Removes the folder, of which the driver has a copy; nobody carries this mark.
            guard = guarded(f"{folder.name}.{secrets.token_hex(4)}", folder)
            assert guard.stdin is not None
            stack.callback(guard.stdin.close)
            held = stack.enter_context(hold(wanted, folder / "gpus.jsonl", mark, ahead=ahead))
            self._hear()
            self._held, self._holding = held, stack.pop_all()
        return held.found

    def sampled(self, offset: int) -> Sampled:
        """What there is since the offset, in bytes of the telemetry."""
        self._hear()
        assert self._held is not None
        ended = self._held.monitor.ended  # before the file is read, so that it holds the last line
        with self._held.monitor.path.open("rb") as file:
            file.seek(offset)
            return Sampled(file.read(CHUNK), ended)

    def returned(self, timeout: float, slack: int) -> Returned:
        """See HostGpus."""
        self._hear()
        assert self._held is not None
        return self._held.returned(timeout, slack)

    def end_sampling(self) -> None:
        """The telemetry is whole afterwards."""
        self._hear()
        if self._held is not None:
            self._held.monitor.stop()

    def give_back(self) -> None:
        """Ends the lease."""
        self._hear()
        self._held = None
        self._holding.close()
