"""What one layout said of the texts, kept so that another layout can be held against it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from acceptance.correctness.scoring import Greedy, Scored

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Account:
    """scored: teacher-forced log-probabilities. greedy: greedy continuations."""

    scored: list[Scored]
    greedy: list[Greedy]

    def write(self, path: Path) -> None:
        """As JSON, replacing what was there in one step."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Account:
        """What write() wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            [
                Scored(o["name"], tuple(o["tokens"]), tuple(o["logprobs"]), tuple(o["best"]))
                for o in data["scored"]
            ],
            [Greedy(o["name"], tuple(o["tokens"]), tuple(o["gaps"])) for o in data["greedy"]],
        )
