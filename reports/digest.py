"""The digest of a run's record, and the seal that says which record a report was made of.

A run that reached its own end is sealed: run.json then holds the SHA-256 of results.jsonl and of
acceptance.html, and the report shows the first. A run that is going on, or was killed, has no seal;
a resumed one loses its seal until it ends again. A digest is no signature: who can write all three
files can make them agree, so a signer notes the digest elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from acceptance.judging.judgement import Frozen
from reports.recorder import RESULTS

if TYPE_CHECKING:
    from pathlib import Path

RUN = "run.json"
REPORT = "acceptance.html"
SEAL = "seal"  # its key in run.json


class Digest(Frozen):
    """Of results.jsonl, as far as it went. sha256: hex. bytes: what it covers. lines: of them."""

    sha256: str
    bytes: int
    lines: int


class Seal(Frozen):
    """What run.json says of a run that ended. word: its verdict. report: SHA-256 of
    acceptance.html, empty when there was none. time: seconds since the epoch."""

    results: Digest
    word: str
    report: str = ""
    time: float


def digest_of(path: Path, most: int | None = None) -> Digest:
    """The digest of a run's results.jsonl, or of its first `most` bytes; of nothing where there is
    no file."""
    file = path / RESULTS if path.is_dir() else path
    sha, size, lines = hashlib.sha256(), 0, 0
    if file.exists():
        with file.open("rb") as stream:
            while most is None or size < most:
                chunk = stream.read(1 << 20 if most is None else min(1 << 20, most - size))
                if not chunk:
                    break
                sha.update(chunk)
                size += len(chunk)
                lines += chunk.count(b"\n")
    return Digest(sha256=sha.hexdigest(), bytes=size, lines=lines)


def seal(run_dir: Path, word: str) -> Seal | None:
    """Writes the seal into run.json; None where there is no run.json to write into."""
    told = read_run(run_dir)
    if told is None:
        return None
    report = run_dir / REPORT
    made = Seal(
        results=digest_of(run_dir),
        word=word,
        report=hashlib.sha256(report.read_bytes()).hexdigest() if report.exists() else "",
        time=time.time(),
    )
    text = json.dumps({**told, SEAL: made.model_dump(mode="json")}, indent=2) + "\n"
    part = run_dir / ".run.json.part"
    part.write_text(text, encoding="utf-8")
    part.replace(run_dir / RUN)
    return made


def read_run(run_dir: Path) -> dict[str, Any] | None:
    """run.json as it is; None when it is missing or not an object."""
    try:
        told = json.loads((run_dir / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
