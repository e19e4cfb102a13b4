"""What the checks of suites/ ask for, made by hand: with the real judge, and the references that
are shipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from acceptance.deployments.load import load_deployments
from acceptance.deployments.schema import Deployment, Profile
from acceptance.judging.references import load_references
from acceptance.serving.server import Server
from fixtures import judging

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.judging.judgement import Judgement, Outcome
    from acceptance.judging.reference import Reference
    from reports.schema import JudgementRecord

BASE = "http://server.test"


def plain(fixture: Any) -> Callable[..., Any]:
    """The function of a fixture."""
    if hasattr(fixture, "_get_wrapped_function"):
        return fixture._get_wrapped_function()  # type: ignore[no-any-return]
    return fixture.__pytest_wrapped__.obj  # type: ignore[no-any-return]  # pytest before 8.4


@lru_cache
def references() -> tuple[Reference, ...]:
    return tuple(load_references())


def deployment(name: str = "rehearsal-tp-ep", **changed: Any) -> Deployment:
    """A shipped deployment; changed: tables whose keys are replaced, such as memory={...}."""
    data = load_deployments()[name].model_dump()
    for table, values in changed.items():
        data[table] = {**data[table], **values}
    return Deployment.model_validate(data)


@dataclass
class World:
    """One deployment under test. records: what was judged, as results.jsonl would hold it."""

    deployment: Deployment
    run_dir: Path
    records: list[JudgementRecord] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> Any:
        """A Run that keeps its records in memory."""
        return SimpleNamespace(
            run_dir=self.run_dir,
            recorder=SimpleNamespace(write=self.records.append),
            profile=Profile.BENCHMARK,
            references=list(references()),
            known=[],
        )

    @property
    def request(self) -> Any:
        config = SimpleNamespace(option=SimpleNamespace(waive=[]))
        return SimpleNamespace(node=self._item(), config=config)

    @property
    def judge(self) -> judging.Judge:
        """The real one."""
        made: judging.Judge = plain(judging.judge)(self.request, self.deployment, self.run)
        return made

    def record_check(self, expected: Any, actual: Any, **evidence: Any) -> None:
        self.seen = {"expected": expected, "actual": actual, **evidence}

    def server(self, **known: Any) -> Server:
        """A server of the deployment. known: fields that matter to the check."""
        usual: dict[str, Any] = {
            "deployment": self.deployment,
            "profile": Profile.BENCHMARK,
            "base_url": BASE,
            "api_key": "the-key",
            "model": self.deployment.model,
            "model_path": str(self.run_dir),
            "version": Version("0.32.0"),
            "vllm": None,
            "custody": SimpleNamespace(exited=False),
        }
        return Server(**{**usual, **known})

    @property
    def judged(self) -> dict[str, Judgement]:
        """The last judgement of each metric."""
        return {r.judgement.measurement.name: r.judgement for r in self.records}

    @property
    def outcomes(self) -> dict[str, Outcome]:
        return {name: judgement.outcome for name, judgement in self.judged.items()}

    def _item(self) -> Any:
        return SimpleNamespace(
            stash=pytest.Stash(),
            path=Path("suites/area/test_it.py"),
            nodeid="suites/area/test_it.py::test_it",
            name="test_it",
            get_closest_marker=lambda _: None,
        )
