"""Runs the suite's own check functions against the fake server, without pytest's fixtures."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import openai
import psutil
from fake_vllm import MODEL
from packaging.version import Version

import suites.conformance
from acceptance.deployments.load import load_deployments, with_options
from acceptance.deployments.schema import Accepted, Deployment, Profile
from acceptance.judging.judge import judge
from acceptance.serving.differences import compare
from acceptance.serving.facts import Experts, Facts
from acceptance.serving.generation import headers
from acceptance.serving.live import read_live
from acceptance.serving.server import Server, Startup
from suites.conformance.asking import Answers

if TYPE_CHECKING:
    from fake_vllm import Twin

    from acceptance.judging.judgement import Judgement, Limit, Measurement
    from acceptance.serving.custody import Custody

Check = Callable[..., None]


LOG = Path(__file__).parents[1] / "data" / "logs" / "real-tp2-ep-start-and-stop.log"
OPEN = {"/invocations": "the fake server's proxy blocks it"}


class Held:
    """As of a server in this process."""

    exited = False

    def processes(self) -> list[psutil.Process]:
        own = psutil.Process()
        return [own, *own.children(recursive=True)]


@lru_cache
def rehearsal() -> Deployment:
    """The shipped rehearsal-tp-ep with all that can be asked of it, which the fake server is a twin
    of."""
    shipped = load_deployments()["rehearsal-tp-ep"]
    asked = with_options(shipped, ["reasoning_parser=deepseek_r1", "tool_call_parser=deepseek_v3"])
    return asked.model_copy(update={"model": MODEL, "accepted": Accepted(open_routes=OPEN)})


def healthy_facts() -> Facts:
    """What its log says."""
    return Facts(
        engine={
            "tensor_parallel_size": "2",
            "pipeline_parallel_size": "1",
            "data_parallel_size": "1",
            "dtype": "torch.bfloat16",
            "enforce_eager": "True",
        },
        experts={0: Experts(0, 2, "linear", 8, 16)},
        attention_backend="CPU_MLA",
        moe_backend="CPU",
        all2all="allgather_reducescatter",
    )


@dataclass
class World:
    """Everything a check can ask for. launched: whether the suite started the server itself."""

    twin: Twin
    deployment: Deployment = field(default_factory=rehearsal)
    profile: Profile = Profile.BENCHMARK
    facts: Facts = field(default_factory=healthy_facts)
    log: Path | None = LOG
    launched: bool = True
    recorded: list[dict[str, Any]] = field(default_factory=list)
    shown: list[Judgement] = field(default_factory=list)
    kept: Answers | None = None

    @property
    def server(self) -> Server:
        return Server(
            deployment=self.deployment,
            profile=self.profile,
            base_url=self.twin.url,
            api_key="the-key",
            model=self.deployment.model,
            model_path="tiny",
            version=Version("0.32.0"),
            vllm=None,
            log=self.log,
            custody=cast("Custody", Held()) if self.launched else None,
            startup=Startup(facts=self.facts),
        )

    def run(self, check: Check, **params: Any) -> None:
        """Calls a check with what its signature names. Raises what it raises."""
        server = self.server
        with ExitStack() as stack:
            makers: dict[str, Callable[[], Any]] = {
                "server": lambda: server,
                "deployment": lambda: self.deployment,
                "live": lambda: read_live(server),
                "answers": lambda: self._answers(server),
                "judge": lambda: self._judge,
                "http": lambda: stack.enter_context(self._client(headers(server))),
                "keyless": lambda: stack.enter_context(self._client({})),
                "openai_client": lambda: stack.enter_context(self._openai()),
                "record_check": lambda: self._record,
                "max_model_len": lambda: self.twin.max_model_len,
                "comparisons": lambda: self._comparisons(server),
            }
            names = inspect.signature(check).parameters
            check(**{n: params[n] if n in params else makers[n]() for n in names})

    def _answers(self, server: Server) -> Answers:
        """The same for every check, as in a run."""
        if self.kept is None:
            client = self._client(headers(server))
            self.kept = Answers(client, server, self.twin.max_model_len)
        return self.kept

    def close(self) -> None:
        if self.kept is not None:
            self.kept.client.close()
        self.twin.stop()

    def _client(self, sent: dict[str, str]) -> httpx.Client:
        return httpx.Client(base_url=self.twin.url, headers=sent, timeout=10, verify=False)

    def _openai(self) -> openai.OpenAI:
        url = f"{self.twin.url}/v1"
        return openai.OpenAI(base_url=url, api_key="the-key", max_retries=0)

    def _record(self, expected: Any, actual: Any, **evidence: Any) -> None:
        self.recorded.append({"expected": expected, "actual": actual, **evidence})

    def _judge(
        self,
        *measurements: Measurement,
        required: bool = True,
        limit: Limit | None = None,
        **conditions: Any,
    ) -> None:
        self.shown += [judge(one, limit, required=required) for one in measurements]

    def _comparisons(self, server: Server) -> dict[str, Any]:
        installed = server.version if self.launched else None
        live = read_live(server)
        found = compare(self.deployment, self.profile, live, installed)
        return {comparison.name: comparison for comparison in found}


def checks() -> list[Check]:
    """Every test function of suites/conformance."""
    found = []
    for module in pkgutil.iter_modules(suites.conformance.__path__):
        if module.name.startswith("test_"):
            loaded = importlib.import_module(f"suites.conformance.{module.name}")
            found += [f for name, f in vars(loaded).items() if name.startswith("test_")]
    return found


def name_of(check: Check) -> str:
    """test_chat.test_shape"""
    return f"{check.__module__.rpartition('.')[2]}.{check.__name__}"


def variants(check: Check) -> Iterator[dict[str, Any]]:
    """The parameters that the check's parametrize marks give it, one dictionary for each test."""
    axes = []
    for mark in getattr(check, "pytestmark", []):
        if mark.name == "parametrize":
            axes.append([{mark.args[0]: value} for value in mark.args[1]])
    for combination in itertools.product(*axes):
        yield {name: value for part in combination for name, value in part.items()}
