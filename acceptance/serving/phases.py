"""What a starting server is doing, read from its log.

The texts are vLLM 0.32.0's and those of the versions before it. Ranks start together but not in
step, so the phase is that of the one furthest on. Profiling, warming and capturing take turns
(kernels are warmed before graphs are captured, and a few graphs are captured to estimate memory);
every other phase is passed once.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from acceptance.serving.facts import Experts, Facts

if TYPE_CHECKING:
    from acceptance.serving.line import LogLine

__all__ = ["Experts", "Facts", "Phase", "Phases", "Transition"]

_TRANSITIONS = 200  # kept at most; a real start has about ten


class Phase(StrEnum):
    """importing: no line of vLLM's yet. launching: configuration, processes, communicators.
    warming: kernels before the graphs, and from listening to the first generation."""

    IMPORTING = "importing"
    LAUNCHING = "launching"
    LOADING = "loading"
    COMPILING = "compiling"
    PROFILING = "profiling"
    CAPTURING = "capturing"
    WARMING = "warming"
    READY = "ready"


_ORDER = {phase: index for index, phase in enumerate(Phase)}
_TURNS = frozenset({Phase.PROFILING, Phase.CAPTURING, Phase.WARMING})


class Transition(NamedTuple):
    """at: the caller's monotonic seconds. number: line of the log, 0 for one not from the log."""

    phase: Phase
    at: float
    number: int


_STARTS: tuple[tuple[str, Phase], ...] = (
    ("Starting to load model", Phase.LOADING),
    ("Loading safetensors", Phase.LOADING),
    ("Multi-thread loading", Phase.LOADING),
    ("Loading pt checkpoint shards", Phase.LOADING),
    ("Starting torch.compile", Phase.COMPILING),
    ("Using cache directory:", Phase.COMPILING),
    ("Dynamo bytecode transform time", Phase.COMPILING),
    ("Compiling a graph for", Phase.COMPILING),
    ("Directly load the compiled graph", Phase.COMPILING),
    ("Directly load AOT compilation", Phase.COMPILING),
    ("Warming up model for the compilation", Phase.COMPILING),
    ("torch.compile took", Phase.PROFILING),
    ("torch.compile takes", Phase.PROFILING),
    ("Initial profiling/warmup run took", Phase.PROFILING),
    ("Profiling CUDA graph memory", Phase.PROFILING),
    ("Available KV cache memory", Phase.PROFILING),
    ("Explicitly set (", Phase.PROFILING),
    ("Auto set (", Phase.PROFILING),
    ("JIT kernel warmup", Phase.WARMING),
    ("DeepGEMM warmup", Phase.WARMING),
    ("Warming up CuTeDSL", Phase.WARMING),
    ("Compiling CuTeDSL kernels", Phase.WARMING),
    ("flashinfer.jit: [Autotuner]", Phase.WARMING),
    ("Using FlashInfer autotune cache", Phase.WARMING),
    ("Compile and warming up model for size", Phase.WARMING),
    ("Capturing CUDA graph", Phase.CAPTURING),
    ("Graph capturing finished", Phase.WARMING),
    ("init engine (", Phase.WARMING),
    ("Application startup complete", Phase.WARMING),
)
# How a text begins says which phase it is of; elsewhere the same words are configuration or advice.
_MARKER = re.compile(
    r"(?:\[[^\]]{1,60}\] )?(" + "|".join(re.escape(text) for text, _ in _STARTS) + ")"
)
_PHASE_OF = dict(_STARTS)
_BAR = re.compile(
    r"(?P<what>[A-Z][^%|:]{0,100}): {0,4}(?P<percent>\d{1,3})%[^/\n]{0,200}?"
    r"(?P<done>\d{1,9})/(?P<total>\d{1,9}) \["
)


class Phases:
    """Feed it every line of one start. began: monotonic seconds at the launch."""

    def __init__(self, began: float) -> None:
        self.facts = Facts()
        self.progress = ""  # within the phase, for people: "checkpoint shards 12/163"
        self.listening = False  # a web server accepts requests; says nothing of the engines
        self.transitions: list[Transition] = [Transition(Phase.IMPORTING, began, 0)]

    @property
    def phase(self) -> Phase:
        """The present phase."""
        return self.transitions[-1].phase

    def feed(self, line: LogLine, now: float) -> Transition | None:
        """Takes one line, seen at monotonic `now`. Returns the transition it made, if any."""
        self.facts.feed(line)
        if self.phase is Phase.READY or line.level in ("ERROR", "CRITICAL", "FATAL"):
            return None
        if "Application startup complete" in line.text:
            self.listening = True
            self.progress = "first generation"
        elif "%" in line.text and (bar := _BAR.search(line.text[:400])):
            what = bar["what"].removeprefix("Loading safetensors ").removeprefix("Capturing ")
            self.progress = f"{what} {bar['done']}/{bar['total']}"
        if marker := _MARKER.match(line.text):
            return self._enter(_PHASE_OF[marker[1]], now, line.number)
        if self.phase is Phase.IMPORTING and line.source and line.level:
            return self._enter(Phase.LAUNCHING, now, line.number)
        return None

    def ready(self, now: float) -> Transition | None:
        """Said by whoever saw the first generation succeed; no line of a log proves that."""
        return self._enter(Phase.READY, now, 0)

    def seconds(self, now: float) -> dict[str, float]:
        """Time spent in each phase entered so far, in order of first entry; the present one lasts
        until `now`, ready lasts nothing."""
        spent: dict[str, float] = {}
        ends = [*(transition.at for transition in self.transitions[1:]), now]
        for transition, end in zip(self.transitions, ends, strict=True):
            if transition.phase is not Phase.READY:
                spent[transition.phase.value] = (
                    spent.get(transition.phase.value, 0.0) + end - transition.at
                )
        return spent

    def _enter(self, phase: Phase, now: float, number: int) -> Transition | None:
        present = self.phase
        turn = phase in _TURNS and present in _TURNS
        if phase is present or (_ORDER[phase] < _ORDER[present] and not turn):
            return None
        if turn and self.listening and phase is not Phase.WARMING:
            return None
        if turn and len(self.transitions) >= _TRANSITIONS:
            return None
        transition = Transition(phase, now, number)
        self.transitions.append(transition)
        if not self.listening:
            self.progress = self.progress if phase in (Phase.LOADING, Phase.CAPTURING) else ""
        return transition
