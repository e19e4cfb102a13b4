"""What one server said of the texts, kept so that another can be held against it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acceptance.correctness.scoring import Greedy, Scored

if TYPE_CHECKING:
    from pathlib import Path

DIGITS = 6  # of a log-probability in a file


@dataclass(frozen=True)
class Account:
    """scored: teacher-forced log-probabilities. greedy: greedy continuations."""

    scored: list[Scored]
    greedy: list[Greedy]

    def write(self, path: Path) -> None:
        """As JSON, replacing what was there in one step."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.data()), encoding="utf-8")
        part.replace(path)

    def data(self) -> dict[str, Any]:
        """As plain data."""

        def short(values: tuple[float, ...]) -> list[float]:
            return [round(value, DIGITS) for value in values]

        return {
            "scored": [
                {
                    "name": one.name,
                    "tokens": one.tokens,
                    "logprobs": short(one.logprobs),
                    "best": one.best,
                    "tops": [{k: round(v, DIGITS) for k, v in top.items()} for top in one.tops],
                }
                for one in self.scored
            ],
            "greedy": [
                {
                    "name": one.name,
                    "prompt": one.prompt,
                    "tokens": one.tokens,
                    "logprobs": short(one.logprobs),
                    "gaps": short(one.gaps),
                }
                for one in self.greedy
            ],
        }

    @classmethod
    def read(cls, path: Path) -> Account:
        """What write() wrote."""
        return cls.of(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, data: dict[str, Any]) -> Account:
        """From plain data. Raises KeyError, TypeError or ValueError for other data."""
        scored = [
            Scored(
                o["name"],
                tuple(o["tokens"]),
                tuple(o["logprobs"]),
                tuple(o["best"]),
                tuple({int(k): float(v) for k, v in top.items()} for top in o["tops"]),
            )
            for o in data["scored"]
        ]
        greedy = [
            Greedy(
                o["name"],
                tuple(o["prompt"]),
                tuple(o["tokens"]),
                tuple(o["logprobs"]),
                tuple(o["gaps"]),
            )
            for o in data["greedy"]
        ]
        return cls(scored, greedy)
