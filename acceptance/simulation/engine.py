"""The simulated engines: continuous batching in virtual time, without a clock of its own.

As vLLM's scheduler: every step, each engine gives a token to each running request and spends what
is left of its token budget on prompts, first come, first served, a long prompt in pieces. A request
whose prompt is done gets its first token at the end of that step. Engines of one server go in step.
When the KV cache is full the newest request loses its place and is computed anew.

One token of a request stands for 1/length_scale tokens of context, which decoding reads and
attention's arithmetic grows with; the time of a step is multiplied by time_scale.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from acceptance.simulation.faults import Faults
from acceptance.simulation.latency import EngineLoad, Machine, constants

if TYPE_CHECKING:
    from collections.abc import Iterator

NOISE_LIMIT = 4.0  # standard deviations; keeps a step's time positive and bounded


class Sink(Protocol):
    """Where tokens of a job go. number: from 0. at: the scheduled moment, seconds."""

    def __call__(self, number: int, at: float) -> None: ...


@dataclass(eq=False)
class Job:
    """One choice of one request. prompt, output: tokens. arrived: seconds, same clock as steps.
    ready: when the front end is done with it, see Scheduler.submit. missed: seconds from then to
    the last step that had begun without it when it was submitted; none in virtual time.
    cached: prompt tokens that need not be computed. delay: seconds more that its first step takes.
    active: whether it is among its engine's running. times: scheduled moment of each token."""

    prompt: int
    output: int
    arrived: float
    sink: Sink
    cached: int = 0
    delay: float = 0.0
    ready: float = 0.0
    missed: float = 0.0
    engine: int = -1
    active: bool = False
    computed: int = 0
    produced: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def remaining(self) -> int:
        """Tokens to be computed before the next one can be produced by decoding."""
        return self.prompt + self.produced - self.computed - (1 if self.decoding else 0)

    @property
    def decoding(self) -> bool:
        return self.produced > 0 and self.computed >= self.prompt + self.produced - 1


@dataclass
class Engine:
    """Queues of one data-parallel engine, and its counters since the start."""

    number: int
    waiting: deque[Job] = field(default_factory=deque)
    running: list[Job] = field(default_factory=list)
    preemptions: int = 0

    @property
    def used(self) -> int:
        """Tokens in its KV cache."""
        return sum(job.computed for job in self.running)


@dataclass
class Step:
    """start, end: seconds. decodes: jobs that get a token by decoding. prefills: pieces of prompts,
    job and tokens."""

    start: float
    end: float
    decodes: list[Job]
    prefills: list[tuple[Job, int]]


@dataclass(frozen=True)
class Limits:
    """Per engine: requests at once, tokens a step, tokens of KV cache."""

    seqs: int
    batched_tokens: int
    kv_tokens: int


class Scheduler:
    """All engines of one server. Pure: time goes only by what plan() is given."""

    def __init__(
        self,
        machine: Machine,
        limits: Limits,
        faults: Faults | None = None,
        length_scale: float = 1.0,
        time_scale: float = 1.0,
        front_end: float | None = None,
    ) -> None:
        """front_end: seconds that each request takes before it can be scheduled; None for the
        declared ones."""
        self.machine = machine
        self.limits = limits
        self.faults = faults or Faults()
        self.length_scale = length_scale
        self.time_scale = time_scale
        self.engines = [Engine(number) for number in range(machine.data)]
        server = constants()["server"]
        self._front_end = time_scale * float(
            server["front_end"] if front_end is None else front_end
        )
        self._submitted = 0
        # The front end: when it was last idle, when it began what it is at, and when it is done.
        self._idle = self._began = self._free = 0.0
        self._planned = 0.0  # when the last step that was planned began
        noise = self.faults.noise
        self._noise = float(server["noise"] if noise is None else noise)
        seed = self.faults.seed
        self._draw = random.Random(server["seed"] if seed is None else seed)

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return any(engine.waiting or engine.running for engine in self.engines)

    def submit(self, job: Job) -> None:
        """Gives the job to the engine with the fewest unfinished requests. It is ready when the one
        front end has read and tokenized those before it and then this one. Jobs may be submitted
        in another order than they arrived in: the front end began with the first of them."""
        if job.arrived >= self._free:
            self._idle, self._began, self._free = self._free, job.arrived, job.arrived
        earlier = self._began - max(job.arrived, self._idle)
        if earlier > 0:
            self._began, self._free = self._began - earlier, self._free - earlier
        job.ready = self._free = self._free + self._front_end
        job.missed = max(0.0, self._planned - job.ready)
        self._submitted += 1
        starved = self.faults.starved_engine
        able = [e for e in self.engines if len(self.engines) == 1 or e.number != starved]
        chosen = min(able, key=lambda e: (len(e.waiting) + len(e.running), e.number))
        job.engine = chosen.number
        chosen.waiting.append(job)

    def earliest(self, arrived: float) -> float:
        """When a job that arrived then and is submitted next is ready."""
        return max(self._free, arrived) + self._front_end

    def drop(self, job: Job) -> None:
        """Takes an aborted job out."""
        engine = self.engines[job.engine]
        if job.active:
            engine.running.remove(job)
            job.active = False
        elif job in engine.waiting:
            engine.waiting.remove(job)

    def plan(self, now: float) -> Step | None:
        """The step that starts now, or with the first arrival after it; None without requests."""
        if not self.busy:
            return None
        if not any(engine.running for engine in self.engines):
            first = min(e.waiting[0].ready for e in self.engines if e.waiting)
            now = max(now, first)
        step = Step(now, now, [], [])
        self._planned = now
        loads = [self._plan_engine(engine, step) for engine in self.engines]
        step.end = now + self._seconds(loads, step)
        return step

    def apply(self, step: Step) -> Iterator[Job]:
        """Hands out the step's tokens; yields the jobs that are done by it. First tokens go first,
        for all are due at once, and hundreds of others take this process milliseconds to send."""
        for job, tokens in step.prefills:
            job.computed += tokens
            if job.computed >= job.prompt + job.produced and self._produce(job, step.end):
                yield job
        for job in step.decodes:
            job.computed += 1
            if self._produce(job, step.end):
                yield job

    def _produce(self, job: Job, at: float) -> bool:
        if not job.active:
            return False  # aborted meanwhile
        job.produced += 1
        job.times.append(at)
        done = job.produced >= job.output
        if done:
            self.engines[job.engine].running.remove(job)
            job.active = False
        job.sink(job.produced - 1, at)
        return done

    def _plan_engine(self, engine: Engine, step: Step) -> EngineLoad:
        stuck = engine.number == self.faults.stuck_engine
        if stuck and self._submitted > self.faults.stuck_after:
            return EngineLoad()
        budget = self.limits.batched_tokens
        used = engine.used
        decodes = [job for job in engine.running if job.decoding]
        while used + len(decodes) > self.limits.kv_tokens and len(engine.running) > 1:
            used -= self._preempt(engine, decodes)
        decodes = decodes[:budget]
        budget -= len(decodes)
        used += len(decodes)
        pieces: list[tuple[Job, int]] = []
        for job in engine.running:
            if budget > 0 and not job.decoding:
                tokens = min(job.remaining, budget)
                pieces.append((job, tokens))
                budget, used = budget - tokens, used + tokens
        while budget > 0 and engine.waiting and len(engine.running) < self.limits.seqs:
            job = engine.waiting[0]
            if job.ready > step.start:
                break
            if engine.running and used + job.prompt + job.produced > self.limits.kv_tokens:
                break
            engine.running.append(engine.waiting.popleft())
            job.active = True
            job.computed = min(job.cached, job.prompt - 1)
            tokens = min(job.remaining, budget)
            pieces.append((job, tokens))
            budget, used = budget - tokens, used + tokens + job.computed
        step.decodes += decodes
        step.prefills += pieces
        return self._load(decodes, pieces)

    def _preempt(self, engine: Engine, decodes: list[Job]) -> int:
        job = engine.running.pop()
        if job in decodes:
            decodes.remove(job)
        freed, job.computed, job.active = job.computed, 0, False
        engine.waiting.appendleft(job)
        engine.preemptions += 1
        return freed

    def _load(self, decodes: list[Job], pieces: list[tuple[Job, int]]) -> EngineLoad:
        context = sum(self._stands_for(job.computed) for job in decodes)
        # Arithmetic of attention goes with the square of what the tokens stand for; the scale of
        # the tokens themselves is taken out once.
        squares = self.length_scale * sum(
            self._stands_for(job.computed + tokens) ** 2 - self._stands_for(job.computed) ** 2
            for job, tokens in pieces
        )
        return EngineLoad(len(decodes), context, sum(tokens for _, tokens in pieces), squares)

    def _stands_for(self, tokens: int) -> float:
        return min(tokens / self.length_scale, float(constants()["model"]["max_position"]))

    def _seconds(self, loads: list[EngineLoad], step: Step) -> float:
        faults = self.faults
        running = sum(len(engine.running) for engine in self.engines)
        bites = running >= faults.from_batch
        decode, prefill, whole = (
            (faults.decode, faults.prefill, faults.step) if bites else (1.0, 1.0, 1.0)
        )
        machine = self.machine
        seconds = decode * machine.decode_seconds(loads) + prefill * machine.prefill_seconds(loads)
        if not step.decodes:  # launches cost the same whatever they launch
            seconds += float(constants()["server"]["decode_overhead"])
        deviation = max(-NOISE_LIMIT, min(NOISE_LIMIT, self._draw.gauss(0, 1)))
        seconds *= whole * max(0.05, 1 + self._noise * deviation)
        compiling = 0.0
        for job, _ in step.prefills:
            compiling, job.delay = compiling + job.delay, 0.0
        return seconds * self.time_scale + compiling
