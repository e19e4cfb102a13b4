"""`python -m reports.verify RUN_DIR`: whether record, identity and report still belong together.

Exit status: 0 when they do, whatever the verdict is; 1 when something differs, and what; 2 when
there is nothing to read; 3 when nothing differs but the run was never sealed, because it was killed
or is going on. Such a run is INCOMPLETE.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from reports.digest import REPORT, RUN, SEAL, Digest, Seal, digest_of, read_run
from reports.reading import Results, read_results
from reports.recorder import RESULTS
from reports.ruling import verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSEALED = "was never sealed: the run was killed, or is going on"


class Shown(HTMLParser):
    """What a report shows of its verdict and digest. word, title, sha256: as printed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.word = self.title = self.sha256 = ""
        self.bytes = 0
        self._into = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "title" and not self.title:
            self._into = "title"
        elif told.get("id") == "verdict-word" and not self.word:
            self._into = "word"
        elif told.get("id") == "digest" and not self.sha256:
            self._into = "sha256"
            self.bytes = int(told.get("data-bytes") or 0)

    def handle_data(self, data: str) -> None:
        if self._into:
            setattr(self, self._into, (getattr(self, self._into) + data).strip())

    def handle_endtag(self, tag: str) -> None:
        self._into = ""


def verify(run_dir: Path, noted: str = "") -> tuple[list[str], Seal | None]:
    """What differs, in words, and the seal. noted: a digest that was written down elsewhere."""
    results = read_results(run_dir)
    told = read_run(run_dir)
    found = [str(problem) for problem in results.problems]
    sealed = _seal(told, found)
    whole = digest_of(run_dir)
    if noted and not whole.sha256.startswith(noted.lower()):
        found.append(f"{RESULTS} has the digest {whole.sha256}, not {noted}")
    if told is None:
        found.append(f"{RUN} is missing or cannot be read")
    else:
        found += _identity(told, results)
    if sealed is not None:
        found += _record(run_dir, sealed.results, whole, "it was sealed")
    found += _report(run_dir, results, sealed, whole)
    return found, sealed


def _seal(told: dict[str, Any] | None, found: list[str]) -> Seal | None:
    if told is None or SEAL not in told:
        return None
    try:
        return Seal.model_validate(told[SEAL])
    except ValidationError:
        found.append(f"the seal in {RUN} cannot be read")
        return None


def _identity(told: dict[str, Any], results: Results) -> list[str]:
    """Where run.json and the last run record say different things."""
    if results.run is None:
        return [f"{RESULTS} holds no run record"]
    recorded = results.run.model_dump(mode="json", by_alias=True)
    return [
        f"{RUN} says {name} {told.get(name)!r}, {RESULTS} {value!r}"
        for name, value in recorded.items()
        if name in told and told[name] != value
    ]


def _record(run_dir: Path, then: Digest, now: Digest, when: str) -> list[str]:
    if now == then:
        return []
    if now.bytes < then.bytes:
        return [f"{RESULTS} was cut from {then.bytes} to {now.bytes} bytes since {when}"]
    if now.bytes > then.bytes and digest_of(run_dir, then.bytes).sha256 == then.sha256:
        return [f"{RESULTS} grew by {now.bytes - then.bytes} bytes since {when}"]
    return [f"{RESULTS} was changed since {when}: {now.sha256}, not {then.sha256}"]


def _report(run_dir: Path, results: Results, sealed: Seal | None, whole: Digest) -> list[str]:
    """The seal's word and what the report says, against what the record supports."""
    verdict = verdict_of(results)
    found = []
    if sealed is not None and sealed.word != verdict.word:
        found.append(f"{RUN} says {sealed.word}, {RESULTS} supports {verdict.word}")
    file = run_dir / REPORT
    if not file.exists():
        return [*found, f"{REPORT} is missing"] if sealed is not None and sealed.report else found
    data = file.read_bytes()
    shown = Shown(data.decode("utf-8", "replace"))
    if sealed is not None and hashlib.sha256(data).hexdigest() != sealed.report:
        found.append(f"{REPORT} was changed since it was sealed")
    if shown.word != verdict.word:
        found.append(f"{REPORT} says {shown.word or 'nothing'}, {RESULTS} supports {verdict.word}")
    if not shown.title.startswith(verdict.word):
        found.append(f"the title of {REPORT} is {shown.title!r}, not {verdict.word}")
    made_of = Digest(sha256=shown.sha256, bytes=shown.bytes, lines=whole.lines)
    return found + _record(run_dir, made_of, whole, f"{REPORT} was made")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what differs, or that nothing does, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.verify", description="Does a run's report belong to its record?"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--digest", default="", metavar="HEX", help="digest noted by a signer")
    options = parser.parse_args(argv)
    run_dir: Path = options.run
    if not (run_dir / RESULTS).is_file():
        print(f"{run_dir}: holds no {RESULTS}", file=sys.stderr)
        return 2
    found, sealed = verify(run_dir, options.digest)
    for what in found:
        print(f"differs: {what}")
    word, digest = verdict_of(read_results(run_dir)).word, digest_of(run_dir)
    print(f"{word}  {digest.lines} lines, sha256 {digest.sha256}")
    if found:
        return 1
    if sealed is None:
        print(f"{run_dir.name} {UNSEALED}")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
