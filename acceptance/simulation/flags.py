"""The command line of the simulated server: vLLM's, as far as this suite writes it, and its own.

What it does not know it refuses, as vLLM does; a flag that is taken and ignored would hide a change
of the suite's own command line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from acceptance.simulation.latency import Machine, constants

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL_LENGTH = 163840


class _Parser(argparse.ArgumentParser):
    def __init__(self) -> None:
        super().__init__("vllm serve", allow_abbrev=False, add_help=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


@dataclass(frozen=True)
class Settings:
    """What the command line asks for. kv_dtype, moe_backend, attention_backend, all2all: None for
    the server's own choice. start_seconds: how long the start-up takes."""

    model: str
    served: str
    host: str
    port: int
    machine: Machine
    expert: bool
    max_model_len: int
    batched_tokens: int
    seqs: int
    utilization: float
    kv_dtype: str | None
    moe_backend: str | None
    attention_backend: str | None
    all2all: str | None
    eager: bool
    prefix_caching: bool
    shutdown_timeout: float
    validate_environment: bool
    length_scale: float
    time_scale: float
    start_seconds: float

    @property
    def layout(self) -> str:
        """As in system_fingerprint: tp8-ep."""
        sizes = (("tp", self.machine.tensor), ("dp", self.machine.data))
        parts = [f"{name}{size}" for name, size in sizes if size > 1]
        return "-".join(parts + (["ep"] if self.expert else []))


def parse(words: Sequence[str]) -> Settings:
    """Arguments after `serve`. Ends the process with code 2 and argparse's words on a bad one."""
    parser = _Parser()
    add, server = parser.add_argument, constants()["server"]
    add("model_tag")
    add("--trust-remote-code", action="store_true")
    add("--tensor-parallel-size", type=int, default=1)
    add("--data-parallel-size", type=int, default=1)
    add("--enable-expert-parallel", action="store_true")
    add("--host", default="0.0.0.0")
    add("--port", type=int, default=8000)
    add("--served-model-name")
    add("--tokenizer")
    add("--max-model-len", type=int, default=FULL_LENGTH)
    add("--max-num-batched-tokens", type=int, default=server["max_num_batched_tokens"])
    add("--max-num-seqs", type=int, default=server["max_num_seqs"])
    add("--gpu-memory-utilization", type=float, default=server["utilization"])
    add("--kv-cache-dtype")
    add("--moe-backend")
    add("--attention-backend")
    add("--all2all-backend")
    add("--enforce-eager", action="store_true")
    add("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    add("--shutdown-timeout", type=float, default=0)
    add("--fail-on-environ-validation", action="store_true")
    own = parser.add_argument_group("simulation")
    gpus = list(constants()["gpu"])
    own.add_argument("--sim-gpu", choices=gpus, default="H200")
    own.add_argument("--sim-precision", choices=list(constants()["precision"]), default="fp8")
    own.add_argument("--sim-length-scale", type=float, default=1.0)
    own.add_argument("--sim-time-scale", type=float, default=1.0)
    own.add_argument("--sim-start-seconds", type=float, default=0.5)
    given = parser.parse_args(words)
    if given.sim_gpu != "B200" and given.sim_precision == "fp4":
        parser.error("argument --sim-precision: fp4 needs --sim-gpu B200")
    return Settings(
        model=given.model_tag,
        served=given.served_model_name or given.model_tag,
        host=given.host,
        port=given.port,
        machine=Machine(
            given.sim_gpu,
            given.sim_precision,
            given.tensor_parallel_size,
            given.data_parallel_size,
            given.gpu_memory_utilization,
        ),
        expert=given.enable_expert_parallel,
        max_model_len=given.max_model_len,
        batched_tokens=given.max_num_batched_tokens,
        seqs=given.max_num_seqs,
        utilization=given.gpu_memory_utilization,
        kv_dtype=given.kv_cache_dtype,
        moe_backend=given.moe_backend,
        attention_backend=given.attention_backend,
        all2all=given.all2all_backend,
        eager=given.enforce_eager,
        prefix_caching=given.enable_prefix_caching,
        shutdown_timeout=given.shutdown_timeout,
        validate_environment=given.fail_on_environ_validation,
        length_scale=given.sim_length_scale,
        time_scale=given.sim_time_scale,
        start_seconds=given.sim_start_seconds,
    )
