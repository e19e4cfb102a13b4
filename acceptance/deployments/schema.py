"""What a deployment is, as data: model, precision, hardware, layout, options and budgets.

TOML files hold it (fixtures/deployments and a site's own folder); load.py reads them. Unknown
keys and wrong types are refused.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from acceptance.deployments.data import Count, Data, Positive, Share, Word
from acceptance.deployments.layout import Layout  # noqa: TC001 - pydantic reads it


class Lane(StrEnum):
    """How real the thing is: all GPUs and weights; one GPU, few layers, dummy weights; real vLLM
    on CPU with a tiny checkpoint; or a simulated server."""

    FULL = "full"
    SLICE = "slice"
    REHEARSAL = "rehearsal"
    SIMULATED = "simulated"


class Profile(StrEnum):
    """How it is served: prefix caching off as the recipe benchmarks, or as vLLM ships it."""

    BENCHMARK = "benchmark"
    SERVING = "serving"


class Precision(StrEnum):
    """Of the checkpoint's expert weights."""

    FP8 = "fp8"
    FP4 = "fp4"
    BF16 = "bf16"


ARCHITECTURES = {
    "H100": "hopper",
    "H200": "hopper",
    "B200": "blackwell",
    "B300": "blackwell",
    "GB200": "blackwell",
    "GB300": "blackwell",
}
GENERATED = "generated/"  # models that the suite makes itself; no hub knows them


class Gpus(Data):
    """kind: product name without maker ("H200"), None on CPU. count: GPUs of one server, of all
    its nodes together, 0 on CPU."""

    kind: str | None = None
    count: int = Field(ge=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        if (self.kind is None) != (self.count == 0):
            raise ValueError("kind and count go together: both, or count = 0 alone for CPU")
        if self.kind is not None and self.kind not in ARCHITECTURES:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(ARCHITECTURES)}")
        return self

    @property
    def architecture(self) -> str:
        """hopper, blackwell or cpu."""
        return ARCHITECTURES[self.kind] if self.kind else "cpu"


class Options(Data):
    """What is wanted, by intent; recipe.py says how each vLLM version is told.

    None leaves it to vLLM. max_model_len, max_num_batched_tokens: tokens. max_num_seqs: requests.
    gpu_memory_utilization: share of a GPU's memory. shutdown_timeout: seconds that requests in
    flight get after SIGTERM. load_format: "dummy" for weights that mean nothing (slice lane).
    reasoning_parser, tool_call_parser: vLLM's names ("deepseek_r1", "deepseek_v3"); without one the
    server splits off no reasoning, or calls no tool. chat_template: a file in place of the model's
    own, which for R1 and V3 shows the model no tools.
    deep_gemm_warmup: "skip", "relax" or "full". The last three are for the rehearsal lane:
    kv_cache_gib in GiB, cpu_threads_bind as "0|1" (cores of each rank, whatever its node).
    """

    max_model_len: Count | None = None
    max_num_batched_tokens: Count | None = None
    max_num_seqs: Count | None = None
    gpu_memory_utilization: Share | None = None
    deep_gemm: bool | None = None
    all2all_backend: Word | None = None
    moe_backend: Word | None = None
    attention_backend: Word | None = None
    kv_cache_dtype: Word | None = None
    enforce_eager: bool = False
    load_format: Word | None = None
    deep_gemm_warmup: Word | None = None
    reasoning_parser: Word | None = None
    tool_call_parser: Word | None = None
    chat_template: Annotated[str, Field(pattern=r"^[^\s-]\S*$")] | None = None
    shutdown_timeout: Count = 5
    data_parallel_plugin: bool | None = None
    kv_cache_gib: Annotated[float, Field(gt=0, multiple_of=1)] | None = None  # vLLM: whole GiB
    cpu_threads_bind: Annotated[str, Field(pattern=r"^[0-9,|-]+$|^auto$|^nobind$")] | None = None


REHEARSAL_ONLY = ("data_parallel_plugin", "kv_cache_gib", "cpu_threads_bind")


class Budgets(Data):
    """Seconds: start, until ready; silence, without a log line or any activity while starting;
    stop, from SIGTERM to gone; request, the longest request; hang, without a token when busy."""

    start: Positive
    silence: Positive
    stop: Positive
    request: Positive
    hang: Positive


# full: 700 GB of weights from cold storage, then DeepGEMM warm-up, which alone ran 11 to 23
# minutes (sglang#9867) with its progress bar written rarely; vLLM's own limit is 600 s and was
# too short (vllm#32116). request: 8000 tokens at 40 ms is 320 s. hang: vLLM itself gives up a
# stuck step after 300 s; a canary must know sooner.
# slice: the same warm-up on one GPU with few layers. rehearsal: ready in 66 s on 2 cores.
LANE_BUDGETS = {
    Lane.FULL: Budgets(start=3600, silence=900, stop=60, request=600, hang=120),
    Lane.SLICE: Budgets(start=1200, silence=600, stop=60, request=300, hang=60),
    Lane.REHEARSAL: Budgets(start=300, silence=120, stop=20, request=60, hang=30),
    Lane.SIMULATED: Budgets(start=30, silence=15, stop=10, request=60, hang=15),
}


class Health(Data):
    """What is asked of the GPUs themselves. observe: names of health checks that must give an
    answer here (acceptance/gpus/health.py); others that NVML does not answer are only listed.
    driver_floor: the oldest driver that may serve."""

    observe: Annotated[tuple[Word, ...], Field(strict=False)] = ()
    driver_floor: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")] | None = None


class Memory(Data):
    """Limits of memory. resident_gib: ceiling of the process tree's resident memory (rehearsal).
    headroom_floor_gib: least free memory of any GPU at any time. max_concurrency_floor: requests
    of max_model_len tokens that the KV cache must hold, per engine."""

    resident_gib: Positive | None = None
    headroom_floor_gib: Positive | None = None
    max_concurrency_floor: Positive | None = None


class Scale(Data):
    """Factors on the performance matrix, and whether its speed may be judged at all (not on a
    shared CPU). time: by how much a simulated server's clock is stretched; never shortened, so
    that physical bounds hold for it as well."""

    length: Share = 1.0
    batch: Share = 1.0
    time: Annotated[float, Field(ge=1)] = 1.0
    speed_gated: bool = True


class Expected(Data):
    """Minutes that --plan counts on: until ready, and for one cell of the matrix."""

    start: Positive = 15.0
    cell: Positive = 4.0


class Accepted(Data):
    """What a person puts up with, by name. open_routes: a route that answers without the key, or
    that only developers should reach, and the reason why it may."""

    open_routes: dict[
        Annotated[str, Field(pattern=r"^/\S+$")], Annotated[str, Field(min_length=10)]
    ] = {}  # noqa: RUF012 - pydantic copies it


class Deployment(Data):
    """One server to be accepted. tokenizer: None for the model's own. source: where the numbers
    come from."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    model: str = Field(pattern=r"^[^\s-]\S*$")
    tokenizer: str | None = None
    precision: Precision = Field(strict=False)
    lane: Lane = Field(default=Lane.FULL, strict=False)
    gpus: Gpus
    layout: Layout
    options: Options = Options()
    budgets: Budgets
    memory: Memory = Memory()
    health: Health = Health()
    scale: Scale = Scale()
    accepted: Accepted = Accepted()
    expected_minutes: Expected = Expected()
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _budgets_of_lane(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("lane", Lane.FULL) not in list(Lane):
            return data
        given = data.get("budgets", {})
        if not isinstance(given, dict):
            return data
        usual = LANE_BUDGETS[Lane(data.get("lane", Lane.FULL))].model_dump()
        return {**data, "budgets": {**usual, **given}}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lane is not Lane.REHEARSAL:
            for name in REHEARSAL_ONLY:
                if getattr(self.options, name) is not None:
                    raise ValueError(f"options.{name} is for the rehearsal lane")
        if self.dummy_weights and self.lane is not Lane.SLICE:
            raise ValueError("options.load_format = dummy is for the slice lane")
        if self.scale.time != 1 and self.lane is not Lane.SIMULATED:
            raise ValueError("scale.time is for the simulated lane")
        self._fits_nodes()
        if self.options.shutdown_timeout >= self.budgets.stop:
            raise ValueError(
                f"options.shutdown_timeout ({self.options.shutdown_timeout} s) must be shorter "
                f"than budgets.stop ({self.budgets.stop:g} s)"
            )
        return self

    def _fits_nodes(self) -> None:
        layout, cores = self.layout, self.options.cpu_threads_bind or ""
        if self.lane in (Lane.SLICE, Lane.SIMULATED) and layout.nodes * layout.pipeline > 1:
            raise ValueError(f"the {self.lane} lane has one node and no pipeline")
        if self.gpus.count % layout.nodes:
            raise ValueError(
                f"layout.nodes = {layout.nodes} cannot share gpus.count = {self.gpus.count} evenly"
            )
        if layout.nodes > 1 and cores[:1].isdigit() and cores.count("|") + 1 != layout.ranks:
            raise ValueError(
                f"options.cpu_threads_bind = {cores!r} must name cores for {layout.ranks} ranks"
            )

    @property
    def hardware(self) -> str:
        """For people: 8xH200, 2x8xH200, CPU."""
        if self.gpus.kind is None:
            return "CPU"
        nodes = f"{self.layout.nodes}x" if self.layout.nodes > 1 else ""
        return f"{nodes}{self.gpus.count // self.layout.nodes}x{self.gpus.kind}"

    @property
    def markers(self) -> frozenset[str]:
        """Names of the pytest markers that its tests carry: precision, layout, architecture,
        lane."""
        names = {self.precision.value, self.lane.value, self.gpus.architecture}
        return frozenset(names | ({self.layout.marker} if self.layout.marker else set()))

    @property
    def gpus_here(self) -> int:
        """GPUs of each host that it takes: none where they are only told to a simulation."""
        return self.gpus_taken // self.layout.nodes

    @property
    def gpus_taken(self) -> int:
        """The same, of all hosts."""
        return 0 if self.lane is Lane.SIMULATED else self.gpus.count

    def __hash__(self) -> int:
        """By name: pytest puts tests of one parameter together only where it can be hashed, and
        tables within a deployment cannot."""
        return hash(self.name)

    @property
    def digest(self) -> str:
        """12 hex digits over everything that decides what is served and how it is judged; prose
        and estimates (source, expected_minutes) are left out."""
        data = self.model_dump(mode="json", exclude={"source", "expected_minutes"})
        for later in ("nodes", "pipeline"):  # not to tell one-node deployments from what they were
            if data["layout"][later] == 1:
                del data["layout"][later]
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def dummy_weights(self) -> bool:
        """Whether the weights mean nothing: speed and memory may be judged, tokens not."""
        return self.options.load_format == "dummy"

    @property
    def trained(self) -> bool:
        """Whether answers mean something: whoever asks a question may expect the right answer."""
        return not (self.lane is Lane.SIMULATED or self.dummy_weights)

    @property
    def model_is_generated(self) -> bool:
        """Whether the suite makes the checkpoint itself."""
        return self.model.startswith(GENERATED)
