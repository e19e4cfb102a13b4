"""What vLLM is known to do otherwise than expected, as data (deviations.toml)."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from acceptance.deployments.schema import Options

DATA = Path(__file__).parent / "deviations.toml"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ask(_Row):
    """A request. body: None for a GET; "model" is added unless the body names one."""

    method: str = "POST"
    path: str
    body: dict[str, Any] | None = None


class Does(_Row):
    """has, lacks: texts of the answer as it comes. count: how often each text is in it."""

    status: int
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    count: dict[str, int] = {}


class Deviation(_Row):
    """Seen in vLLM from `since` up to, not including, `until`."""

    name: str
    since: str
    until: str
    needs: str = ""
    keyless: bool = False
    ask: Ask
    does: Does
    source: str = Field(min_length=5)

    def covers(self, version: Version) -> bool:
        """Whether this version is known to do it."""
        release = Version(version.base_version)
        return Version(self.since) <= release < Version(self.until)

    def applies(self, options: Options, *, keyed: bool) -> bool:
        """Whether the deployment has what it takes to see it."""
        if self.needs == "key":
            return keyed
        wanted, _, name = self.needs.rpartition(" ")
        return not name or bool(getattr(options, name)) is (wanted != "no")

    def body(self, model: str) -> dict[str, Any] | None:
        """What is sent."""
        if self.ask.body is None:
            return None
        sent = {"model": model, **self.ask.body}
        return {name: value for name, value in sent.items() if value != ""}

    def changes(self, status: int, text: str) -> list[str]:
        """Where an answer is another than was seen; empty as long as vLLM does as it did."""
        told = text.replace('": ', '":')
        found = [] if status == self.does.status else [f"HTTP {status}, was {self.does.status}"]
        found += [f"has no {part}" for part in self.does.has if part not in told]
        found += [f"has {part}" for part in self.does.lacks if part in told]
        found += [
            f"has {part} {told.count(part)} times, was {times}"
            for part, times in self.does.count.items()
            if told.count(part) != times
        ]
        return found


@cache
def deviations() -> tuple[Deviation, ...]:
    """All, in the order of the file. Raises pydantic's ValidationError for a row that is none."""
    rows = tomllib.loads(DATA.read_text(encoding="utf-8"))["deviation"]
    return tuple(Deviation.model_validate(row) for row in rows)
