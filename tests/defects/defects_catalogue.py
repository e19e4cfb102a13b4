"""The catalogue: what is broken, where, and what the suite must make of it. Data in catalogue/."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from acceptance.load.validity import RULES

# Validity rules that say nothing of speed: they hold, or not, however busy the machine is.
CLOCKLESS = frozenset(rule.id for rule in RULES if not rule.of_speed)
FOLDER = Path(__file__).with_name("catalogue")
# Classes of failures: rows of the facts on deployments, in the order of docs/defects.md.
ROWS = {
    "memory": "memory at start-up, in capture and load",
    "start": "hang, slowness or refusal in start-up",
    "output": "wrong output of a server that looks healthy",
    "crash": "crash or hang while serving",
    "leak": "leaks and processes left behind",
    "balance": "balance of engines, ports, performance, configuration that was not taken",
    "interface": "what clients are told: form, counts, errors, keys",
}


class World(StrEnum):
    """Where a defect is put in.

    proxy: between the suite and a healthy server, which is attached to. simulated: into a simulated
    server that the suite launches, or around it. gpu: into a made-up GPU, or the fake server on it.
    speed: into a simulated server that is measured by vLLM's own client. vllm: into real vLLM on
    CPU that the suite launches.
    """

    PROXY = "proxy"
    SIMULATED = "simulated"
    GPU = "gpu"
    SPEED = "speed"
    VLLM = "vllm"


class Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expected(Data):
    """What must follow. check: end of the node id of a check below suites/ (`*` fits all), or
    "server" for one that does not start, dies or hangs. outcome: of a judgement; ERROR for a test
    that broke off, REFUSED for a run that does not begin. rule: a validity
    rule. told: words that the reason, the cause or the terminal must hold. within: seconds from the
    start of the run."""

    check: str
    outcome: Literal["FAIL", "INVALID", "ERROR", "FAILED", "REFUSED"] = "FAIL"
    verdict: Literal["REJECTED", "INCOMPLETE", "NONE"] = "REJECTED"
    metric: str = ""
    rule: str = ""
    told: str = ""
    within: float = Field(gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.check == "server") != (self.outcome == "FAILED"):
            raise ValueError("a server is FAILED, and nothing else is")
        if self.rule and self.outcome != "INVALID":
            raise ValueError("a broken rule makes INVALID")
        if (self.outcome == "REFUSED") != (self.verdict == "NONE"):
            raise ValueError("a run that is refused has no verdict")
        return self


class Defect(Data):
    """One entry. issue: where it happened in public. inject: what the world is told. select: the
    part of the suite that is run. on_vllm: a proxy that has nothing to alter before a simulated
    server. untimed: of what is measured, what is found without a clock, and so may be measured
    beside other runs. cpu: a feature, by its name in /proc/cpuinfo, without which vLLM does not do
    what is broken. missed: why the suite is known to miss it. undetectable: why nothing that only
    sees the server from outside can tell.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    issue: Annotated[str, Field(min_length=3)]
    row: str
    broken: Annotated[str, Field(min_length=10)]
    world: World | None = None
    inject: dict[str, Any] = {}
    deployment: str = ""
    select: tuple[str, ...] = ()
    keyword: str = ""
    on_vllm: bool = False
    untimed: bool = False
    cpu: str = ""
    expect: Expected | None = None
    missed: str = ""
    undetectable: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.row not in ROWS:
            raise ValueError(f"row {self.row!r} is none of {', '.join(ROWS)}")
        if self.undetectable:
            if self.world or self.expect or self.missed:
                raise ValueError("what cannot be detected is neither injected nor expected")
        elif self.world is None or not self.inject or not self.select or self.expect is None:
            raise ValueError("needs a world, what is injected, what is selected and what follows")
        if self.untimed and (self.world is not World.SPEED or not self._clockless):
            raise ValueError("only what is measured can be untimed, and found without a clock")
        return self

    @property
    def _clockless(self) -> bool:
        """Whether it follows from what came or did not, and not from when."""
        expected = self.expect
        return expected is not None and (expected.outcome == "FAILED" or expected.rule in CLOCKLESS)

    @property
    def quick(self) -> bool:
        """Whether it needs no real vLLM as its server."""
        return self.world not in (None, World.VLLM) and not self.on_vllm

    @property
    def timed(self) -> bool:
        """Whether a clock decides on it, which wants a machine with nothing else to do."""
        return self.world is World.SPEED and not self.untimed


@lru_cache
def catalogue(folder: Path = FOLDER) -> dict[str, Defect]:
    """Every entry by id, in the order of the files. Raises ValueError for an id used twice."""
    found: dict[str, Defect] = {}
    for file in sorted(folder.glob("*.toml")):
        for given in tomllib.loads(file.read_text(encoding="utf-8"))["defect"]:
            defect = Defect.model_validate(given)
            if defect.id in found:
                raise ValueError(f"{file.name}: {defect.id} is used twice")
            found[defect.id] = defect
    return found
