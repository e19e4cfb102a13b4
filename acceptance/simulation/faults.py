"""What can be wrong with the simulated server, as data: knobs, and named sets of them.

Told through one variable of the environment, ACCEPTANCE_SIMULATION, as JSON: {"fault": "slow-20"}
takes a set from faults.toml, and other keys turn single knobs: {"decode": 1.2, "seed": 3}.
"""

from __future__ import annotations

import json
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acceptance.errors import InputError

VARIABLE = "ACCEPTANCE_SIMULATION"
DATA = Path(__file__).with_name("faults.toml")


class Faults(BaseModel):
    """The knobs; the defaults are an honest server. Factors are above 1 for slower.

    Faults of answers meet only requests of at least `least_tokens` tokens, so that the server
    starts and its watch's small generations succeed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Speed
    prefill: float = Field(default=1.0, gt=0, description="factor on the time of prompts (TTFT)")
    decode: float = Field(default=1.0, gt=0, description="factor on the time of tokens (TPOT)")
    step: float = Field(
        default=1.0, gt=0, description="factor on every step: TTFT, TPOT, throughput"
    )
    from_batch: int = Field(
        default=0, ge=0, description="the factors hold from so many running requests"
    )
    noise: float | None = Field(
        default=None, ge=0, description="relative deviation of a step's time"
    )
    seed: int | None = Field(default=None, description="of that noise; the declared one by default")
    cold_requests: int = Field(
        default=0, ge=0, description="so many first requests compile kernels"
    )
    cold_seconds: float = Field(default=0.2, ge=0, description="what each compilation takes")
    # Answers
    least_tokens: int = Field(
        default=8, ge=1, description="smallest request that the following meet"
    )
    fail: float = Field(default=0.0, ge=0, le=1, description="share of requests answered with 500")
    break_after: int = Field(default=0, ge=0, description="streams break off after so many tokens")
    missing_tokens: int = Field(default=0, ge=0, description="answers end so many tokens early")
    tokens_a_chunk: int = Field(
        default=1, ge=1, description="streams gather so many tokens in a chunk"
    )
    unstable: bool = Field(default=False, description="greedy answers differ from one to the next")
    # Engines and memory
    cached: float = Field(
        default=0.0, ge=0, le=1, description="share of prompts from the prefix cache"
    )
    starved_engine: int | None = Field(
        default=None, ge=0, description="engine that is given no request"
    )
    kv_share: float = Field(
        default=1.0, gt=0, le=1, description="share of the KV cache that is there"
    )
    kv_usable: float = Field(
        default=1.0, gt=0, le=1, description="share of the KV cache that can be used, told as whole"
    )
    leak_mib: float = Field(default=0.0, ge=0, description="MiB of memory kept of every request")
    leak_requests: int = Field(
        default=0, ge=0, description="after so many requests no more memory is kept; 0: always"
    )
    # Log, life and identity
    jit_every: int = Field(
        default=0, ge=0, description="a JIT line in the log every so many requests"
    )
    error_every: int = Field(default=0, ge=0, description="an ERROR line every so many requests")
    hang_after: int = Field(default=0, ge=0, description="no token any more after so many requests")
    die_after: int = Field(default=0, ge=0, description="the engine dies at this request")
    fingerprint_layout: str | None = Field(default=None, description="layout in system_fingerprint")
    open: bool = Field(default=False, description="asks nobody for a key")
    lost_metrics: tuple[str, ...] = Field(default=(), description="metrics that are not exported")
    outlives: bool = Field(
        default=False,
        description="the API server outlives its engine: requests fail, /health answers 200",
    )
    stuck_engine: int | None = Field(
        default=None, ge=0, description="engine that computes nothing, while others do"
    )
    stuck_after: int = Field(default=0, ge=0, description="it does until so many requests came")
    keep_aborted: bool = Field(default=False, description="requests whose clients are gone run on")
    ghosts: int = Field(
        default=0, ge=0, description="one in so many finished requests stays among the waiting"
    )
    # Start
    never_ready: bool = Field(default=False, description="stops in the middle of its start")
    silent_at: str = Field(default="", description="falls silent at the line with these words")
    spins: bool = Field(default=False, description="burns a core while it is silent")
    exits_at: str = Field(default="", description="ends with code 0 at the line with these words")
    runs_out_at: Literal["", "weights", "profiling", "no-cache", "length", "warmup", "capture"] = (
        Field(default="", description="where the start runs out of memory")
    )
    start_seconds: float | None = Field(
        default=None, gt=0, description="how long the start takes, without a pause in its lines"
    )

    def bites(self, tokens: int) -> bool:
        """Whether faults of answers meet a request of so many output tokens."""
        return tokens >= self.least_tokens


class Preset(BaseModel):
    """A named set. why: what it stands for. shows: what must come of it: ids of broken validity
    rules, or names of measurements that fall short."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    why: str
    shows: tuple[str, ...]
    knobs: dict[str, Any]


@lru_cache
def presets() -> dict[str, Preset]:
    """faults.toml by name."""
    data = tomllib.loads(DATA.read_text(encoding="utf-8"))
    return {name: Preset.model_validate(given) for name, given in data["fault"].items()}


def read_faults(text: str | None) -> Faults:
    """From the variable's text; None and "" are an honest server. Raises InputError."""
    if not text:
        return Faults()
    asked = f"{VARIABLE}={text}"
    try:
        given = json.loads(text)
        name = given.pop("fault", None)
        known = presets()[name].knobs if name is not None else {}
        return Faults.model_validate({**known, **given})
    except KeyError as error:
        raise InputError(
            f"no fault is called {error}", asked=asked, hint=f"faults: {', '.join(presets())}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"fault {where}: {first['msg']}",
            asked=asked,
            hint=f"knobs: {', '.join(Faults.model_fields)}",
        ) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{VARIABLE} is no JSON object: {error}", asked=asked) from None
