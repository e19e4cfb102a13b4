"""A golden record: what an accepted server said of the texts, to hold later ones against.

It is bound to the checkpoint's files, its tokenizer and the texts. Another checkpoint says other
things, and a comparison with it would be meaningless in both directions, so it is refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from acceptance.correctness.account import Account
from acceptance.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1


@dataclass(frozen=True)
class Binding:
    """checkpoint, tokenizer, texts: digests; see fingerprint.py and texts.py."""

    checkpoint: str
    tokenizer: str
    texts: str


@dataclass(frozen=True)
class Golden:
    """One deployment's account. vllm: the version that served."""

    deployment: str
    layout: str
    model: str
    vllm: str
    binding: Binding
    account: Account

    def write(self, path: Path) -> None:
        """As JSON, in one step."""
        data = {**asdict(self), "account": self.account.data()}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(data), encoding="utf-8")
        part.replace(path)


def gather(parts: list[Path], path: Path) -> None:
    """Writes the golden record of a run from those of its deployments."""
    entries = [json.loads(part.read_text(encoding="utf-8")) for part in sorted(parts)]
    made = path.with_suffix(".part")
    made.write_text(json.dumps({"schema": SCHEMA, "entries": entries}), encoding="utf-8")
    made.replace(path)


def read_golden(path: Path) -> list[Golden]:
    """The entries of a golden record. Raises InputError for anything else."""
    asked = f"--golden {path}"
    hint = "an accepted run writes golden.json into its directory"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {data['schema']}, not {SCHEMA}", asked=asked)
        return [_entry(entry) for entry in data["entries"]]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", asked=asked, hint=hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no golden record: {error!r}", asked=asked, hint=hint
        ) from error


def _entry(data: dict[str, Any]) -> Golden:
    return Golden(
        **{name: str(data[name]) for name in ("deployment", "layout", "model", "vllm")},
        binding=Binding(**data["binding"]),
        account=Account.of(data["account"]),
    )


def choose(golden: list[Golden], binding: Binding, layout: str, asked: str) -> Golden:
    """The entry of the same checkpoint, tokenizer and texts, of the same layout where there is one.
    Raises InputError naming what differs."""
    same = [one for one in golden if one.binding == binding]
    if same:
        return next((one for one in same if one.layout == layout), same[0])
    near = next((one for one in golden if one.binding.checkpoint == binding.checkpoint), None)
    if near is None:
        known = ", ".join(f"{one.model} {one.binding.checkpoint}" for one in golden) or "nothing"
        raise InputError(
            f"the golden record is of another checkpoint: {known}; this one is "
            f"{binding.checkpoint}",
            asked=asked,
            hint="record a golden run of this checkpoint, or leave --golden out",
        )
    differs = [
        name
        for name in ("tokenizer", "texts")
        if getattr(near.binding, name) != getattr(binding, name)
    ]
    raise InputError(
        f"the golden record was made with another {' and other '.join(differs)}",
        asked=asked,
        hint="record it again with this version of the suite",
    )
