"""The driver's side of one node: what its agent says, kept up to date; its log, copied here."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from acceptance.cluster.agent import CHUNK, About, News, boot_id
from acceptance.errors import AcceptanceError, ServerError
from acceptance.serving.launcher import Ended, Part
from acceptance.serving.processes import kill, marked
from acceptance.serving.warden import mask

if TYPE_CHECKING:
    from pathlib import Path

    import psutil

PERIOD = 0.4  # seconds between two looks
START = 60.0  # seconds in which an agent must have started its part
ANSWER = 10.0  # seconds in which it must answer most other questions
SILENT = 60.0  # seconds without any answer after which a node counts as lost; it may be busy
SPARE = 20.0  # seconds beyond the grace in which it must have ended its part


class Reach:
    """An agent as its driver reaches it; once it is out of reach, for good.

    ray: the module, connected. lost: why the agent does not answer any more; empty while it
    does."""

    def __init__(self, ray: Any, agent: Any) -> None:
        self._ray, self._agent = ray, agent
        self._answered = time.monotonic()
        self.lost = ""

    def ask(self, name: str, *given: Any, timeout: float = ANSWER) -> Any:
        """What the agent answers; None when it does not, or is out of reach for good."""
        if not self.lost and not self._ray.is_initialized():
            self.lost = "this process has left the cluster"
        if self.lost:
            return None
        try:
            answer = self._ray.get(getattr(self._agent, name).remote(*given), timeout=timeout)
        except (
            self._ray.exceptions.GetTimeoutError,
            self._ray.exceptions.ActorUnavailableError,  # Ray has not made up its mind
        ):
            if time.monotonic() - self._answered > SILENT:
                self.lost = f"no answer for {SILENT:.0f} s"
            return None
        except self._ray.exceptions.RayError as error:
            first = (str(error).strip() or repr(error)).splitlines()[0]
            self.lost = f"{type(error).__name__}: {first}"
            return None
        self._answered = time.monotonic()
        return answer


class RemoteCare:
    """One node's part of a server, in the care of an agent. ray: the module, connected."""

    def __init__(
        self, ray: Any, agent: Any, about: About, part: Part, note: str, *, stays: bool = False
    ) -> None:
        """note: goes before the node's own words in its log. stays: whether the agent is not to end
        with the part. Raises ServerError."""
        self.log: Path = part.log
        self.ended_at: float | None = None
        self._ray, self._agent, self._about, self._part = ray, agent, about, part
        self._stays = stays
        self._offset = 0
        self._reach = Reach(ray, agent)
        self._gone: Ended | None = None
        self._closed = threading.Event()
        self._told = threading.Condition()
        self._looking = threading.Lock()
        self._news = News(b"", 0.0, exited=False, exit_code=None, lost=False, fate="lives")
        with self.log.open("ab") as log:
            log.write(f"{note}\n".encode())
        try:
            self.pid: int | None = ray.get(agent.start.remote(part), timeout=START)
        except (ray.exceptions.RayError, ServerError) as error:
            raise ServerError(
                "its agent could not start it",
                asked=f"{' '.join(part.argv)} at {about.address}",
                cause=_why(error),
                log=self.log,
            ) from error
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def exit_code(self) -> int | None:
        return self._news.exit_code

    @property
    def exited(self) -> bool:
        return self._news.exited or bool(self._reach.lost)

    @property
    def lost(self) -> bool:
        return self._news.lost or bool(self._reach.lost)

    @property
    def fate(self) -> str:
        return f"is out of reach: {self._reach.lost}" if self._reach.lost else self._news.fate

    def processes(self) -> list[psutil.Process]:
        """Empty where the node is another machine."""
        return marked(self._part.mark) if self._about.boot == boot_id() else []

    def cpu_seconds(self) -> float:
        return self._news.cpu

    def fetch(self) -> None:
        while self._look() == CHUNK:
            pass

    def signal(self, number: int) -> None:
        self._reach.ask("signal", number)

    def wait_exit(self, seconds: float) -> int | None:
        with self._told:
            self._told.wait_for(lambda: self.exited, timeout=seconds)
        return self.exit_code

    def end(self, grace: float) -> Ended:
        if self._gone is None:
            began = time.monotonic()
            ended = self._reach.ask("end", grace, timeout=grace + SPARE)
            self._gone = ended or Ended(self.exit_code, time.monotonic() - began, self._sweep())
            self._closed.set()
            self._listener.join(2 * ANSWER)
            self.fetch()  # what was logged last
            self._reach.ask("close")
            if not self._stays:
                self._ray.kill(self._agent)
            mask(self.log, self._part.secret.encode())
        return self._gone

    def _sweep(self) -> tuple[int, ...]:
        """Of a node that is this machine, what its dead agent has left; its guard does so too."""
        left = self.processes()
        kill(left)
        return tuple(process.pid for process in left)

    def _listen(self) -> None:
        while not self._closed.wait(PERIOD):
            self._look()
            if self._reach.lost:
                return

    def _look(self) -> int:
        """Fetches what is new; bytes that the log grew by."""
        with self._looking:
            return self._fetch()

    def _fetch(self) -> int:
        news: News | None = self._reach.ask("news", self._offset)
        if news is not None:
            with self.log.open("ab") as log:
                log.write(news.log)
            self._offset += len(news.log)
        with self._told:
            self._news = news or self._news
            if self.exited and self.ended_at is None:
                self.ended_at = time.monotonic()
            self._told.notify_all()
        return len(news.log) if news is not None else 0


def raised(error: Exception) -> AcceptanceError | None:
    """What an agent raised, where it was one of ours: Ray's own error has that as its cause."""
    found = (getattr(error, "cause", None), error)
    return next((one for one in found if isinstance(one, AcceptanceError)), None)


def _why(error: Exception) -> str:
    told = raised(error)
    return (told.cause or told.happened) if told is not None else str(error)
