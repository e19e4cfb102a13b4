"""The driver's side of one node's GPUs: leased there by an agent; their telemetry, copied here."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from acceptance.cluster.agent import CHUNK
from acceptance.cluster.remote import ANSWER, PERIOD, SPARE, Reach, raised
from acceptance.errors import AcceptanceError, ObservationError, ServerError
from acceptance.gpus.monitor import whole
from acceptance.gpus.probe import Unobservable
from acceptance.gpus.tail import TelemetryTail

if TYPE_CHECKING:
    from pathlib import Path

    from acceptance.cluster.gpuagent import Sampled
    from acceptance.gpus.held import Found, Returned, Wanted
    from acceptance.gpus.telemetry import Telemetry

LEASED = 180.0  # seconds in which an agent must have leased: others' leases may have to end first


class NodeGpus:
    """Leased GPUs of one node (HostGpus). ray: the module, connected."""

    def __init__(
        self, ray: Any, agent: Any, name: str, wanted: Wanted, ahead: float, path: Path
    ) -> None:
        """name: of the node, for people. ahead: seconds by which its clock is ahead of this host's.
        path: of the telemetry here. Raises AcceptanceError, naming the node."""
        self.name, self.path = name, path
        self._reach = Reach(ray, agent)
        self._tail = TelemetryTail(path)
        self._offset = 0
        self._ended: int | None = None  # the sampler's exit code
        self._closed = threading.Event()
        self._looking = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        try:
            self.found: Found = ray.get(agent.lease.remote(wanted, ahead), timeout=LEASED)
        except (ray.exceptions.RayError, AcceptanceError) as error:
            raise _named(name, error) from error
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def telemetry(self, *, partly: bool = False) -> Telemetry:
        with self._looking:
            self._fetch()
            found = self._tail.read()
            if self._reach.lost and found.ended is None and not partly:
                raise ObservationError(
                    f"{self.name} is out of reach: {self._reach.lost}", log=self.path
                )
            return whole(found, self._ended, self.path, partly=partly)

    def returned(self, timeout: float, slack: int) -> Returned:
        answer: Returned | None = self._reach.ask(
            "returned", timeout, slack, timeout=timeout + SPARE
        )
        if answer is None:
            why = self._reach.lost or "no answer"
            return dict.fromkeys(self.found.taken, Unobservable(f"{self.name}: {why}"))
        return answer

    def end(self) -> None:
        """Ends sampling, has the rest of it here, and gives the GPUs back. Safe to call again."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._listener.join(2 * ANSWER)
        self._reach.ask("end_sampling", timeout=SPARE)
        with self._looking:
            self._fetch()
        self._reach.ask("give_back")

    def _listen(self) -> None:
        """The agent hears of its driver by this too."""
        while not self._closed.wait(PERIOD) and not self._reach.lost:
            with self._looking:
                self._fetch()

    def _fetch(self) -> None:
        """Brings the copy up to date, as far as the agent answers."""
        news: Sampled | None = self._reach.ask("sampled", self._offset)
        while news is not None:
            with self.path.open("ab") as file:
                file.write(news.text)
            self._offset += len(news.text)
            self._ended = news.ended
            news = self._reach.ask("sampled", self._offset) if len(news.text) == CHUNK else None


def _named(name: str, error: Exception) -> AcceptanceError:
    """What the agent raised, with the node's name."""
    told = raised(error)
    if told is None:
        last = (str(error).strip() or repr(error)).splitlines()[-1]
        return ServerError(f"{name} did not lease its GPUs", cause=last)
    told.happened = f"{name}: {told.happened}"
    return told
