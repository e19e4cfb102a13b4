"""Memory over time: extremes per phase, and every sample in a telemetry file as it happens, so that
the file also tells of a run that was killed.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Self

from acceptance.errors import ObservationError
from acceptance.gpus.memory import HOST, MemoryProbe, MemorySample, Missed
from acceptance.gpus.probe import Observed, Unobservable

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Extremes:
    """Of one device in one phase, bytes. samples and missed: how often it answered and did not."""

    samples: int
    missed: int
    peak_used: int
    least_free: int
    first_used: int
    last_used: int

    @property
    def growth(self) -> int:
        return self.last_used - self.first_used


class MemorySampler:
    """Samples a MemoryProbe every `interval` seconds from a thread while the block runs.

    path: telemetry, one JSON object a sample and device: t (seconds since the epoch), phase,
    device, then total, free, used (bytes) or unobservable, error. A phase is sampled when it begins
    and when it ends, however short it is.
    """

    def __init__(
        self,
        probe: MemoryProbe,
        *,
        path: Path | None = None,
        interval: float = 1.0,
        phase: str = "starting",
    ) -> None:
        self._probe = probe
        self._path = path
        self._interval = interval
        self._phase = phase
        self._seen: dict[tuple[str, str], Extremes] = {}
        self._missed: dict[tuple[str, str], list[Unobservable]] = {}
        self._broke: Exception | None = None
        self._file: IO[str] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def __enter__(self) -> Self:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        with self._lock:
            self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._sample()
            if self._file is not None:
                self._file.close()

    def phase(self, name: str) -> None:
        """Ends the phase and begins another: what follows is kept under `name`."""
        with self._lock:
            self._sample()
            self._phase = name
            self._sample()

    def extremes(self, device: str = HOST, phase: str | None = None) -> Observed[Extremes]:
        """Of a device in a phase, or in all phases together.

        Unobservable, with the reason, when it never answered. Raises ObservationError when sampling
        itself broke, because what was kept until then would look like the whole.
        """
        with self._lock:
            if self._broke is not None:
                raise ObservationError(f"Memory sampling broke: {self._broke!r}") from self._broke
            names = [key for key in self._keys() if key[0] == device and phase in (None, key[1])]
            seen = [self._seen[key] for key in names if key in self._seen]
            missed = [why for key in names for why in self._missed.get(key, ())]
        if not seen:
            during = f" during {phase}" if phase else ""
            return missed[-1] if missed else Unobservable(f"{device} was not sampled{during}")
        return Extremes(
            samples=sum(each.samples for each in seen),
            missed=len(missed),
            peak_used=max(each.peak_used for each in seen),
            least_free=min(each.least_free for each in seen),
            first_used=seen[0].first_used,
            last_used=seen[-1].last_used,
        )

    def _keys(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys([*self._seen, *self._missed]))

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        try:
            now = time.time()
            for sample in self._probe.sample():
                self._keep(sample)
                self._write(now, sample)
        except Exception as error:  # told by extremes(); a dead thread would tell nobody
            self._broke = self._broke or error

    def _keep(self, sample: MemorySample | Missed) -> None:
        key = (sample.device, self._phase)
        if isinstance(sample, Missed):
            self._missed.setdefault(key, []).append(sample.why)
            return
        old = self._seen.get(key)
        self._seen[key] = Extremes(
            samples=old.samples + 1 if old else 1,
            missed=0,
            peak_used=max(old.peak_used, sample.used) if old else sample.used,
            least_free=min(old.least_free, sample.free) if old else sample.free,
            first_used=old.first_used if old else sample.used,
            last_used=sample.used,
        )

    def _write(self, now: float, sample: MemorySample | Missed) -> None:
        if self._file is None:
            return
        line: dict[str, object] = {"t": round(now, 3), "phase": self._phase}
        if isinstance(sample, Missed):
            why = sample.why
            line |= {"device": sample.device, "unobservable": why.reason, "error": why.error}
        else:
            line |= asdict(sample)
        self._file.write(json.dumps(line) + "\n")
