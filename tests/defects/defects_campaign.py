"""Runs entries of the catalogue, world by world, each beside its configuration's healthy twin."""

from __future__ import annotations

import fcntl
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from defects_alter import ALTERATIONS
from defects_bases import simulated_base, switch, vllm_base
from defects_catalogue import Defect, World
from defects_proxy import Proxy
from defects_running import Runs
from defects_scoring import Score, Scored, findings, score, score_healthy
from defects_worlds import (
    attached,
    build_library,
    configuration,
    deployment_of,
    gpu,
    grouped,
    names,
    simulated,
    speed,
    switched,
    twin,
    vllm,
    write_metadata,
    write_site,
)

if TYPE_CHECKING:
    from defects_bases import Base
    from defects_scoring import Alarms, Ran

WAITING = 8  # runs at a time that mostly wait for a server
COMPUTING = 2
Run = Callable[[Defect], "Ran"]
ASK = {World.SIMULATED: simulated, World.GPU: gpu, World.VLLM: vllm}


@dataclass
class Campaign:
    """folder: where runs leave their files. lock: a file that is locked while real vLLM runs, for
    hosts that several people work on. keep: told of every score at once. scores: by id, those of
    healthy twins too. alarms: what falls short on a healthy twin, by configuration."""

    folder: Path
    scores: dict[str, Score] = field(default_factory=dict)
    alarms: dict[str, Alarms] = field(default_factory=dict)
    lock: Path | None = None
    keep: Callable[[str, Score], None] | None = None
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        write_site(self.folder)
        write_metadata(self.folder)
        self.library = build_library(self.folder / "nvml")
        self.runs = Runs(self.folder, self.library)

    def run(self, defects: Sequence[Defect], *, on_vllm: bool = False) -> None:
        """All of them. on_vllm: proxies stand before real vLLM."""
        by: dict[World | None, list[Defect]] = defaultdict(list)
        features = cpu_features()
        for defect in defects:
            if defect.cpu and defect.cpu not in features:
                self._say(f"{defect.id} is left out: vLLM does it on a CPU with {defect.cpu}")
                continue
            before_vllm = on_vllm and defect.world is World.PROXY
            defect = defect.model_copy(update={"on_vllm": defect.on_vllm or before_vllm})
            by[defect.world].append(defect)
        for defect in by[None]:
            self._note(defect.id, Score(Scored.UNDETECTABLE))
        if self.library is None and by[World.GPU]:
            self._say("no C compiler: entries on a made-up GPU are left out")
            by[World.GPU] = []
        proxied = [defect for defect in by[World.PROXY] if not defect.on_vllm]
        with self._measuring(by[World.SPEED]), ExitStack() as stack:
            through = None
            if proxied:
                base = stack.enter_context(simulated_base(self.folder))
                through = stack.enter_context(self._proxies(base))
            launched = [*by[World.SIMULATED], *by[World.GPU]]
            self._several([*proxied, *launched], WAITING, through)
        proxied = [defect for defect in by[World.PROXY] if defect.on_vllm]
        plugged = [defect for defect in by[World.VLLM] if switched(defect)]
        if proxied or plugged:  # one server for both: nothing is broken in it at first
            with self._alone(), vllm_base(self.folder) as base:
                with self._proxies(base) as through:
                    self._several(proxied, COMPUTING, through, apart=True)
                self._switched(plugged, base)
        self._several([defect for defect in by[World.VLLM] if not switched(defect)], 1)

    @contextmanager
    def _measuring(self, defects: Sequence[Defect]) -> Iterator[None]:
        """Measures, in one run: beside the block what needs no clock, and once the block has ended,
        with nothing else beside it, the rest."""
        if not defects:
            yield
            return
        # First what takes longest, a hang: the client that it leaves waiting is ended, and the next
        # one has to import vLLM, which may as well be done beside the block.
        untimed = sorted((d for d in defects if d.untimed), key=_patience, reverse=True)
        timed = [defect for defect in defects if defect.timed]
        everyone = [*untimed, *map(twin, grouped(defects).values()), *timed]
        named = names(everyone)
        quiet = self.folder / "quiet"
        asked = speed(everyone, named, self.folder / "speed", quiet)
        with ThreadPoolExecutor(1) as beside:
            done = beside.submit(self.runs.run, "speed", asked)
            try:
                yield
            finally:
                quiet.touch()
        for defect in sorted(everyone, key=lambda defect: defect.untimed):  # twins first
            self._score(defect, done.result(), named[defect.id])

    @contextmanager
    def _proxies(self, base: Base) -> Iterator[Run]:
        """Runs against this server, each through a proxy of its own."""
        proxy = Proxy(base.url, base.key)

        def run(defect: Defect) -> Ran:
            alteration = ALTERATIONS[defect.inject.get("alter", "none")]()
            with proxy.altering(alteration) as url:
                asked = attached(defect, self.folder, url, base.key, base.deployment)
                return self.runs.run(defect.id, asked)

        try:
            yield run
        finally:
            proxy.close()

    def _switched(self, defects: Sequence[Defect], base: Base) -> None:
        """One after the other in one running server, the healthy twin first."""
        if not defects:
            return
        for defect in [twin(defects), *defects]:
            switch(self.folder).write_text(json.dumps(defect.inject["plugin"]), encoding="utf-8")
            asked = attached(defect, self.folder, base.url, base.key, base.deployment)
            self._score(defect, self.runs.run(defect.id, asked), base.deployment)

    def _several(
        self,
        defects: Sequence[Defect],
        at_once: int,
        through: Run | None = None,
        *,
        apart: bool = False,
    ) -> None:
        """Each in a run of its own, twins first, then what may take longest; scored once its twin
        is. through: runs what stands behind a proxy. apart: nothing is beside the twins."""

        def run(defect: Defect) -> Ran:
            if defect.world is World.PROXY:
                assert through is not None
                return through(defect)
            assert defect.world is not None
            with self._alone() if defect.world is World.VLLM else nullcontext():
                return self.runs.run(defect.id, ASK[defect.world](defect, self.folder))

        def one(defect: Defect, healthy: Future[None] | None = None) -> None:
            ran = run(defect)
            if healthy is not None:
                healthy.result()
            self._score(defect, ran, deployment_of(defect))

        with ThreadPoolExecutor(at_once) as pool:
            twins = {
                where: pool.submit(one, twin(group)) for where, group in grouped(defects).items()
            }
            if apart:
                wait(twins.values())
            longest = sorted(defects, key=_patience, reverse=True)
            for done in [pool.submit(one, d, twins[configuration(d)]) for d in longest]:
                done.result()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock, if there is one."""
        if self.lock is None:
            yield
            return
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _score(self, defect: Defect, ran: Ran, deployment: str) -> None:
        where = configuration(defect)
        if defect.id.startswith("healthy."):
            fell_short = findings(ran.results, deployment)
            self.alarms[where] = frozenset(key for one in fell_short for key in one.keys)
            self._note(defect.id, score_healthy(ran, deployment))
        else:
            known = self.alarms.get(where, frozenset())
            self._note(defect.id, score(defect, ran, deployment, known))

    def _note(self, name: str, found: Score) -> None:
        self.scores[name] = found
        if self.keep is not None:
            self.keep(name, found)
        self._say(f"{name}: {found.scored}, {found.seconds:.1f} s, {found.verdict} {found.by}")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self.began:6.1f}] {text[:200]}\n")
        sys.stderr.flush()


def cpu_features() -> frozenset[str]:
    """Of this machine's CPU, by their names in /proc/cpuinfo."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(found, "").split())


def _patience(defect: Defect) -> float:
    """How long its finding may take, which goes with how long its run does."""
    return defect.expect.within if defect.expect else 0.0
