"""The lines of results.jsonl: one JSON object each, tagged by `type`, versioned by `schema`.

`python -m reports.schema` prints their JSON Schema, which reports/results.schema.json holds.
Every time is in seconds since the epoch, every duration in seconds. A key that is added and may be
left out keeps the version; anything that makes an old line unreadable raises it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from acceptance.deployments.schema import Lane  # noqa: TC001 (pydantic needs it)
from acceptance.judging.judgement import Frozen, Judgement

SCHEMA = 1


class Line(Frozen):
    """What every line carries. time: when it was written."""

    model_config = ConfigDict(populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    time: float


class GpuIdentity(Frozen):
    """One GPU that the run could see. memory_gib: its total. node: of a cluster that it is of, for
    people. driver: of that node."""

    name: str
    uuid: str = ""
    index: int | None = None
    memory_gib: float | None = None
    node: str = ""
    driver: str = ""


class SelectedDeployment(Frozen):
    """A deployment that the run set out to judge. digest: over what is served and how it is
    judged. gpus: such as `8xH200`, or `CPU`."""

    name: str
    digest: str
    lane: Lane
    model: str = ""
    precision: str = ""
    layout: str = ""
    gpus: str = ""


class RunRecord(Line):
    """Who ran what, where. The first line of a run; a resumed run writes another.

    argv: the command line, without secrets. suite_commit: of this suite's repository, `+` when
    the working tree differs; empty where there is no repository. vllm: None when unknown.
    narrowed: why the run judges less than all that its deployments ask, such as `-k tpot`; any
    entry keeps the verdict INCOMPLETE.
    """

    type: Literal["run"] = "run"
    suite_version: str
    suite_commit: str = ""
    argv: tuple[str, ...] = ()
    host: str = ""
    platform: str = ""
    python: str = ""
    vllm: str | None = None
    driver: str | None = None
    gpus: tuple[GpuIdentity, ...] = ()
    deployments: tuple[SelectedDeployment, ...] = ()
    tier: str = ""
    narrowed: tuple[str, ...] = ()


class Check(Frozen):
    """Which check of which deployment. All empty for what concerns the run as a whole.

    check: the test's node id without parameters. variant: its parameters without the deployment.
    nodeid: all of it. title: first sentence of the test's docstring. area: conformance,
    correctness, memory, performance or resilience.
    """

    deployment: str = ""
    digest: str = ""
    lane: Lane | None = None
    profile: str = ""
    area: str = ""
    check: str = ""
    variant: str = ""
    nodeid: str = ""
    title: str = ""


class Trace(Frozen):
    """Why it went wrong, for a person. cause: the root-cause line. excerpt: lines around it.
    log: path of the full log. hint: what to try."""

    cause: str = ""
    excerpt: tuple[str, ...] = ()
    log: str = ""
    hint: str = ""


class Exchange(Frozen):
    """A request of a check and its answer, without secrets and cut to what is kept.

    path: with its query. address: who answered, as host and port, where the server has several.
    auth: whether the server's own key was sent, none, or another. whole: whether `request` is all
    of the body, so that it can be sent again.
    """

    method: str
    path: str
    status: int
    address: str = ""
    auth: Literal["key", "none", "other"] = "none"
    content_type: str = ""
    request: str = ""
    whole: bool = True
    response: str = ""


class JudgementRecord(Line):
    """One judgement. attempt: counts from 1; a retry of an INVALID cell is 2. conditions: what
    the reference was looked up by, such as workload and batch. exchanges: what the check asked
    of the server until then, oldest first."""

    type: Literal["judgement"] = "judgement"
    check: Check
    judgement: Judgement
    attempt: int = Field(default=1, ge=1)
    conditions: dict[str, Any] = Field(default_factory=dict)
    trace: Trace = Trace()
    exchanges: tuple[Exchange, ...] = ()


class ServerRecord(Line):
    """A server became ready, failed, or was stopped on purpose.

    failed: it did not start, died or hung; an error of the run. phases: seconds of each start-up
    phase, in order. command: shell text that repeats the start, without secrets. gpus: those of a
    cluster's nodes under it; a run's own host has them in its first record.
    """

    type: Literal["server"] = "server"
    deployment: str
    digest: str = ""
    lane: Lane | None = None
    profile: str = ""
    outcome: Literal["ready", "failed", "stopped"]
    phases: dict[str, float] = Field(default_factory=dict)
    command: str = ""
    vllm: str = ""
    gpus: tuple[GpuIdentity, ...] = ()
    trace: Trace = Trace()


class TestRecord(Line):
    """How a test ended: once for its call, and for a setup or teardown that did not pass.

    judged: a judgement that was recorded says why it failed; the failure counts there, not here.
    error: class of the exception.
    """

    __test__ = False

    type: Literal["test"] = "test"
    check: Check
    phase: Literal["setup", "call", "teardown", "collect"]
    outcome: Literal["passed", "failed", "skipped", "xfailed", "xpassed"]
    judged: bool = False
    duration: float = 0.0
    error: str = ""
    trace: Trace = Trace()


class Spent(Frozen):
    """Seconds of one deployment: of all starts of its servers, of measuring its cells, and from its
    first test to the end of its last. starts, cells: how many."""

    start_seconds: float = 0.0
    cell_seconds: float = 0.0
    whole_seconds: float = 0.0
    starts: int = 0
    cells: int = 0


class EstimateRecord(Line):
    """How long a deployment was expected to take, by the numbers of --plan for the tests that were
    selected, and how long it took. finished: its last selected test has ended; one that did not
    come to that took less than it might."""

    type: Literal["estimate"] = "estimate"
    deployment: str
    digest: str = ""
    lane: Lane | None = None
    finished: bool
    expected: Spent
    actual: Spent


class EndRecord(Line):
    """The run reached its own end. finished: nothing cut it short. exit_status: of pytest, the
    verdict included. word: the verdict as it stood."""

    type: Literal["end"] = "end"
    finished: bool
    exit_status: int
    word: str
    duration: float = 0.0


Record = Annotated[
    RunRecord | JudgementRecord | ServerRecord | TestRecord | EstimateRecord | EndRecord,
    Field(discriminator="type"),
]
AnyRecord = RunRecord | JudgementRecord | ServerRecord | TestRecord | EstimateRecord | EndRecord
RECORD: TypeAdapter[AnyRecord] = TypeAdapter(Record)


def json_schema() -> str:
    """The JSON Schema of a line, as results.schema.json holds it."""
    schema = RECORD.json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A line of results.jsonl"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(json_schema(), end="")
