"""Runs entries of the catalogue, world by world, each beside its configuration's healthy twin."""

from __future__ import annotations

import fcntl
import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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
    simulated,
    speed,
    switched,
    twin,
    vllm,
    write_metadata,
    write_site,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from defects_bases import Base
    from defects_running import Asked
    from defects_scoring import Alarms, Ran

WAITING = 4  # runs at a time that mostly wait for a server
COMPUTING = 2


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
        for defect in defects:
            by[defect.world].append(defect)
        for defect in by[None]:
            self._note(defect.id, Score(Scored.UNDETECTABLE))
        proxied = by[World.PROXY]
        if found := [d for d in proxied if not (on_vllm or d.on_vllm)]:
            with simulated_base(self.folder) as base:
                self._proxied(found, base)
        if found := [d for d in proxied if on_vllm or d.on_vllm]:
            with self._alone(), vllm_base(self.folder) as base:
                self._proxied(found, base)
        self._several(by[World.SIMULATED], simulated, WAITING)
        if self.library is None and by[World.GPU]:
            self._say("no C compiler: entries on a made-up GPU are left out")
        else:
            self._several(by[World.GPU], gpu, COMPUTING)
        if by[World.SPEED]:
            self._measured(by[World.SPEED])
        if found := [defect for defect in by[World.VLLM] if switched(defect)]:
            with self._alone(), vllm_base(self.folder) as base:
                self._switched(found, base)
        self._several([d for d in by[World.VLLM] if not switched(d)], vllm, 1)

    def _proxied(self, defects: Sequence[Defect], base: Base) -> None:
        proxy = Proxy(base.url, base.key)

        def one(defect: Defect) -> None:
            name = defect.inject.get("alter", "none")
            with proxy.altering(ALTERATIONS[name]()) as url:
                asked = attached(defect, self.folder, url, base.key, base.deployment)
                self._score(defect, self.runs.run(defect.id, asked), base.deployment)

        try:
            self._each([twin(defects)], one, 1)
            self._each(defects, one, COMPUTING)
        finally:
            proxy.close()

    def _switched(self, defects: Sequence[Defect], base: Base) -> None:
        """One after the other in one running server, the healthy twin first."""
        for defect in [twin(defects), *defects]:
            switch(self.folder).write_text(json.dumps(defect.inject["plugin"]), encoding="utf-8")
            asked = attached(defect, self.folder, base.url, base.key, base.deployment)
            self._score(defect, self.runs.run(defect.id, asked), base.deployment)

    def _several(
        self, defects: Sequence[Defect], ask: Callable[[Defect, Path], Asked], at_once: int
    ) -> None:
        by: dict[str, list[Defect]] = defaultdict(list)
        for defect in defects:
            by[configuration(defect)].append(defect)

        def one(defect: Defect) -> None:
            with self._alone() if defect.world is World.VLLM else nullcontext():
                ran = self.runs.run(defect.id, ask(defect, self.folder))
            self._score(defect, ran, deployment_of(defect))

        twins = [twin(group) for group in by.values()]
        self._each(twins, one, at_once)
        self._each(defects, one, at_once)

    def _measured(self, defects: Sequence[Defect]) -> None:
        """Nothing else runs meanwhile: these are measurements."""
        by: dict[str, list[Defect]] = defaultdict(list)
        for defect in defects:
            by[configuration(defect)].append(defect)
        everyone = [*(twin(group) for group in by.values()), *defects]
        asked, named = speed(everyone, self.folder)
        ran = self.runs.run("speed", asked)
        for defect in everyone:
            self._score(defect, ran, named[defect.id])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock, if there is one."""
        if self.lock is None:
            yield
            return
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _each(self, defects: Sequence[Defect], one: Callable[[Defect], None], many: int) -> None:
        with ThreadPoolExecutor(many) as pool:
            for done in [pool.submit(one, defect) for defect in defects]:
                done.result()

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
