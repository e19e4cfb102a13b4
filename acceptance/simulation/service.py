"""The simulated server behind its routes: admits requests, counts, keeps the truth, does faults."""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acceptance.simulation import log
from acceptance.simulation.answers import Head
from acceptance.simulation.bodies import Refused, tokens_of
from acceptance.simulation.engine import Job, Limits, Scheduler
from acceptance.simulation.language import Generated, generate
from acceptance.simulation.latency import constants
from acceptance.simulation.metrics import LATE, Metrics
from acceptance.simulation.prefixes import Prefixes
from acceptance.simulation.pump import Pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.simulation.bodies import Chat, Completion
    from acceptance.simulation.faults import Faults
    from acceptance.simulation.flags import Settings

KEPT = 8192  # finished requests of which the truth is kept
ROUNDING = 1e-9
FIRST, NEXT = "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"
EACH, ALL = "vllm:request_time_per_output_token_seconds", "vllm:e2e_request_latency_seconds"


@dataclass
class Live:
    """One request in the server. number: of those that faults of answers meet, from 1; 0 for the
    others. arrived: seconds of time.monotonic()."""

    head: Head
    body: Completion | Chat
    prompts: list[list[int]]
    made: list[Generated]
    arrived: float
    number: int = 0
    jobs: list[Job] = field(default_factory=list)
    open: int = 0
    sent: dict[int, list[float]] = field(default_factory=dict)


class Service:
    """One server's state. Everything runs in one event loop."""

    def __init__(self, settings: Settings, faults: Faults) -> None:
        server = constants()["server"]
        self.settings = settings
        self.faults = faults
        self.version = str(server["version"])
        self.block = int(server["block"])
        self.kv_tokens = int(
            settings.machine.kv_tokens(self.block, settings.length_scale) * faults.kv_share
        )
        usable = int(self.kv_tokens * faults.kv_usable)
        limits = Limits(settings.seqs, settings.batched_tokens, usable)
        scales = (settings.length_scale, settings.time_scale)
        self.pump = Pump(Scheduler(settings.machine, limits, faults, *scales), self._done)
        self.metrics = Metrics(settings.machine.data, settings.served)
        self.prefixes = Prefixes(self.block, self.kv_tokens)
        self.truth: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._requests = self._met = self._finished = 0
        self._dead = False
        self._ghosts: dict[int, int] = defaultdict(int)
        self._leak: list[bytearray] = []
        self._of: dict[int, Live] = {}

    @property
    def scheduler(self) -> Scheduler:
        return self.pump.scheduler

    @property
    def fingerprint(self) -> str:
        """vllm-0.32.0-tp8-ep-<hash8>: the same for the same command line, whatever the port."""
        settings = self.settings
        told = repr(settings).replace(f"port={settings.port}", "")
        layout = self.faults.fingerprint_layout or settings.layout
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        return "-".join(filter(None, (f"vllm-{self.version}", layout, digest)))

    def admit(self, body: Completion | Chat, came: float) -> Live:
        """Checks and generates, without queueing. came: seconds of time.monotonic(). Raises
        Refused."""
        if self._dead:
            raise Refused("EngineCore encountered an issue", 500, "EngineDeadError")
        limit = self.settings.max_model_len
        prompts = body.prompts()
        caps = [tokens_of(body, prompt, limit) for prompt in prompts]
        self._requests += 1
        kind = "chatcmpl" if "messages" in type(body).model_fields else "cmpl"
        head = Head(
            f"{kind}-sim{self._requests:08d}",
            int(time.time()),
            self.settings.served,
            self.fingerprint,
        )
        live = Live(head, body, prompts, [], came)
        if self.faults.bites(max(caps)):
            self._met += 1
            live.number = self._met
        self._meet(live)
        lost = self.faults.missing_tokens if live.number else 0
        for prompt, cap in zip(prompts, caps, strict=True):
            tokens = max(1, cap - lost) if cap else 0
            disturbance = self._requests if self.faults.unstable else 0
            for choice in range(body.n):
                wish = body.wish(tokens, choice, disturbance)
                live.made.append(generate(prompt, wish))
        return live

    def queue(self, live: Live, emit: Callable[[int, int], None]) -> None:
        """Gives a request's choices to the engines. emit: choice and number of each token."""
        for index, made in enumerate(live.made):
            cached = self._cached(live, made.prompt)
            job = Job(
                len(made.prompt),
                # A prompt that is only scored takes a step as well.
                max(1, len(made.tokens)),
                live.arrived,
                self._sink(live, index, emit),
                cached,
                self.faults.cold_seconds if self._is_cold(live) else 0.0,
            )
            live.jobs.append(job)
            live.open += 1
            self._of[id(job)] = live
            self.pump.submit(job)
            metrics = self.metrics
            metrics.count(job.engine, "vllm:prompt_tokens_total", job.prompt)
            if self.settings.prefix_caching or cached:
                metrics.count(job.engine, "vllm:prefix_cache_queries_total", job.prompt)
                metrics.count(job.engine, "vllm:prefix_cache_hits_total", cached)

    def abort(self, live: Live) -> None:
        """Takes a request out whose client is gone."""
        if self.faults.keep_aborted:
            return
        for job in live.jobs:
            if self._of.pop(id(job), None) is not None:
                self.scheduler.drop(job)
                self.metrics.finished[job.engine]["abort"] += 1

    def gauges(self) -> dict[str, list[float]]:
        """What /metrics tells of this moment, by engine."""
        engines, capacity = self.scheduler.engines, self.kv_tokens
        for engine in engines:
            counters = self.metrics.counters[engine.number]
            counters["vllm:num_preemptions_total"] = engine.preemptions
        return {
            "vllm:num_requests_running": [len(engine.running) for engine in engines],
            "vllm:num_requests_waiting": [
                len(engine.waiting) + self._ghosts[engine.number] for engine in engines
            ],
            "vllm:kv_cache_usage_perc": [min(1.0, e.used / capacity) for e in engines],
        }

    def cache_config(self) -> list[dict[str, str]]:
        """Labels of each engine's cache_config_info."""
        settings = self.settings
        labels = {
            "block_size": self.block,
            "cache_dtype": settings.kv_dtype or "auto",
            "enable_prefix_caching": settings.prefix_caching,
            "gpu_memory_utilization": settings.utilization,
            "num_gpu_blocks": self.kv_tokens // self.block,
            "kv_cache_size_tokens": self.kv_tokens,
            "kv_cache_max_concurrency": self.kv_tokens / settings.max_model_len,
            "kv_cache_memory_bytes": None,
        }
        return [{k: str(v) for k, v in labels.items()} for _ in self.scheduler.engines]

    def _meet(self, live: Live) -> None:
        """The faults that come with a request. Raises Refused for one that fails."""
        faults, number = self.faults, live.number
        if not number:
            return
        if faults.leak_mib and not 0 < faults.leak_requests <= len(self._leak):
            self._leak.append(bytearray(os.urandom(1) * int(faults.leak_mib * 2**20)))
        if self._is_cold(live) or (faults.jit_every and number % faults.jit_every == 0):
            log.write(log.jit_line(self.settings, 0))
        if faults.error_every and number % faults.error_every == 0:
            text = f"Error in request {live.head.id}: RuntimeError: simulated"
            log.write(log.say("APIServer", "serving.py:301", text, "ERROR"))
        if faults.hang_after and number > faults.hang_after:
            self.pump.hung = True
        if faults.die_after and number >= faults.die_after:
            self._die()
        before, now = ((n * faults.fail + ROUNDING) // 1 for n in (number - 1, number))
        if now > before:
            raise Refused("EngineCore encountered an issue", 500, "InternalServerError")

    def _is_cold(self, live: Live) -> bool:
        return 0 < live.number <= self.faults.cold_requests

    def _die(self) -> None:
        """Raises Refused when the API server lives on."""
        name = log.engine_name(self.settings, 0)
        for text in (
            "EngineCore encountered a fatal error.",
            "Traceback (most recent call last):",
            '  File "core.py", line 1100, in run_engine_core',
            "RuntimeError: CUDA error: an illegal memory access was encountered",
        ):
            log.write(log.say(name, "core.py:1108", text, "ERROR"))
        if not self.faults.outlives:
            os._exit(1)
        self._dead = True
        raise Refused("EngineCore encountered an issue", 500, "EngineDeadError")

    def _cached(self, live: Live, prompt: list[int]) -> int:
        """Prompt tokens that are not computed."""
        if self.settings.prefix_caching:
            return self.prefixes.take(prompt)
        return int(len(prompt) * self.faults.cached) if live.number else 0

    def _sink(self, live: Live, index: int, emit: Callable[[int, int], None]) -> Any:
        made, sent = live.made[index], live.sent.setdefault(index, [])
        scored_only = not made.tokens

        def sink(number: int, at: float) -> None:
            job = live.jobs[index]
            if not scored_only:
                self.metrics.count(job.engine, "vllm:generation_tokens_total")
                name, since = (NEXT, job.times[-2]) if number else (FIRST, job.arrived)
                self.metrics.observe(job.engine, name, at - since)
            emit(index, number)
            sent.append(time.monotonic())
            if not number:
                self.metrics.observe(job.engine, LATE, max(0.0, sent[0] - at) + job.missed)

        return sink

    def _done(self, job: Job) -> None:
        live = self._of.pop(id(job), None)
        if live is None:
            return
        self._finished += 1
        if self.faults.ghosts and self._finished % self.faults.ghosts == 0:
            self._ghosts[job.engine] += 1
        index = live.jobs.index(job)
        made, times, metrics = live.made[index], job.times, self.metrics
        metrics.finished[job.engine][made.finish_reason] += 1
        metrics.observe(job.engine, ALL, times[-1] - job.arrived)
        if len(times) > 1:
            metrics.observe(job.engine, EACH, (times[-1] - times[0]) / (len(times) - 1))
        sent = live.sent[index]
        self.truth.append(
            {
                "id": live.head.id,
                "choice": index,
                "streamed": live.body.stream,
                "engine": job.engine,
                "prompt": job.prompt,
                "output": len(made.tokens),
                "arrived": job.arrived,
                "scheduled": list(times),
                "sent": [sent[0], sent[-1]],
            }
        )
