"""What a campaign found, for people and the next campaign: lines, scores.json, docs/defects.md."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defects_catalogue import ROWS, Defect, World, catalogue
from defects_scoring import Score, Scored
from defects_worlds import healthy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SCORES = Path(__file__).with_name("scores.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "defects.md"
COMMAND = "./accept defects"
TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/[^/\s]+")  # of one run alone
ON_VLLM = "@vllm"  # after an id: the same with real vLLM behind the proxy
PLACES = {
    World.PROXY: "proxy",
    World.SIMULATED: "simulated server",
    World.GPU: "made-up GPU",
    World.SPEED: "simulated server, measured",
    World.VLLM: "real vLLM on CPU",
    None: "nowhere",
}


def short(scores: Mapping[str, Score]) -> list[str]:
    """What ought to be otherwise: entries not detected as expected, though nothing in the catalogue
    says why; and false alarms."""
    known = catalogue()
    fine = (Scored.DETECTED, Scored.HEALTHY, Scored.UNDETECTABLE)
    return [
        name
        for name, found in scores.items()
        if found.scored not in fine and not (name in known and known[name].missed)
    ]


def summary(scores: Mapping[str, Score]) -> str:
    """One line, and one for each entry that ought to be otherwise."""
    counts = Counter(found.scored for found in scores.values())
    line = ", ".join(f"{counts[kind]} {kind}" for kind in Scored if counts[kind])
    return "\n".join([line, *(f"  {name}: {scores[name].scored}" for name in short(scores))])


def write(scores: Mapping[str, Score], words: Sequence[str], *, on_vllm: bool) -> None:
    """Merges into scores.json, and writes the document anew."""
    kept = load()
    made = {
        "command": " ".join([COMMAND, *(word for word in words if word != "--write")]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {_python()}",
    }
    for name, found in scores.items():
        if found.scored not in (Scored.UNDETECTABLE, Scored.BROKEN):
            at = f"{name}{ON_VLLM}" if on_vllm else name
            by = TEMPORARY.sub("TMP", found.by)
            kept[at] = {**asdict(found), "by": by, "seconds": round(found.seconds, 1), **made}
    text = json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False)
    SCORES.write_text(text + "\n", encoding="utf-8")
    DOCUMENT.write_text(document(), encoding="utf-8")


def load() -> dict[str, dict[str, Any]]:
    """scores.json; empty when there is none."""
    if not SCORES.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(SCORES.read_text(encoding="utf-8"))
    return found


def document() -> str:
    """docs/defects.md, from the catalogue and scores.json alone."""
    return "\n".join(_lines(catalogue(), load())) + "\n"


def _lines(known: Mapping[str, Defect], scores: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield HEAD
    counts = Counter(
        str(scores[name]["scored"]) if name in scores else str(Scored.BROKEN)
        for name, defect in known.items()
        if not defect.undetectable
    )
    undetectable = [defect for defect in known.values() if defect.undetectable]
    yield (
        f"{len(known)} entries: "
        + ", ".join(f"{counts[kind]} {kind}" for kind in Scored if counts[kind])
        + (f", {len(undetectable)} that cannot be detected" if undetectable else "")
        + "."
    )
    worlds = {healthy(d) for d in known.values() if d.world}
    twins = {n: found for n, found in scores.items() if n in worlds}
    alarms = [name for name, found in twins.items() if found["scored"] != Scored.HEALTHY]
    yield ""
    yield (
        f"Healthy twins: {len(twins)} configurations, "
        f"{len(alarms) or 'no'} false alarm{'s' if len(alarms) > 1 else ''}."
    )
    for row, title in ROWS.items():
        chosen = [d for d in known.values() if d.row == row and not d.undetectable]
        if not chosen:
            continue
        yield f"\n## {title[0].upper()}{title[1:]}\n"
        yield "| defect | seen in | put into | found by | score | s |"
        yield "|---|---|---|---|---|---|"
        for defect in chosen:
            yield _row(defect, scores)
    on_vllm = [n.removesuffix(ON_VLLM) for n in scores if n.endswith(ON_VLLM)]
    if on_vllm:
        yield "\n## The same proxies before real vLLM on CPU\n"
        yield "| defect | score | s |\n|---|---|---|"
        for name in on_vllm:
            found = scores[f"{name}{ON_VLLM}"]
            yield f"| {name} | {found['scored']} | {found['seconds']:.1f} |"
    short_ones = [d for d in known.values() if d.missed]
    if short_ones:
        yield "\n## Missed, and why\n"
        yield from (f"- `{d.id}`: {d.missed}." for d in short_ones)
    if undetectable:
        yield "\n## What nothing can detect that sees a server only from outside\n"
        yield from (f"- {d.broken} ({d.issue}): {d.undetectable}." for d in undetectable)
    yield "\n## How it was made\n"
    made = Counter((s["command"], s["date"], s["machine"]) for s in scores.values())
    yield "| command | on | scores |\n|---|---|---|"
    for (command, date, machine), number in sorted(made.items()):
        yield f"| `{command}` | {date}, {machine} | {number} |"


def _row(defect: Defect, scores: Mapping[str, Mapping[str, Any]]) -> str:
    found = scores.get(defect.id, {"scored": str(Scored.BROKEN), "seconds": 0, "by": ""})
    expected = defect.expect
    assert expected is not None
    by = str(found["by"]).partition(":")[0] or "nothing"
    cells = [
        f"`{defect.id}`: {defect.broken}",
        defect.issue,
        PLACES[defect.world],
        by,
        str(found["scored"]),
        f"{found['seconds']:.1f}" if found["by"] else "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _python() -> str:
    return platform.python_version()


HEAD = """# The defect catalogue

How many of the failures that people really had does the suite detect, how fast, and how often does
it cry wolf? `tests/defects/catalogue/` holds them as data: what is broken, where it happened in
public, where it is put in, and what must follow. `./accept defects` runs the real suite against
each, beside a healthy twin of the same configuration, and reads its results. `--quick` leaves out
what needs real vLLM, and takes less than five minutes on two cores: runs go on beside one another,
and what a clock decides on is measured when everything else has ended.

| score | when |
|---|---|
| detected | the check that must find it did, with the outcome and verdict it must have, in time |
| detected otherwise | the run fell short for another reason, or too late |
| missed | nothing fell short |
| not scored | it was not run yet, or the run could not be made |

Seconds are from the start of the suite's run, or from the deployment before in a run of many, to
the record of the finding; the server's start is included where the suite starts it. They were taken
on a machine that did other work, often a lot of it.

"Put into": a proxy alters the traffic of a healthy server; a simulated server has the fault itself,
or is measured by vLLM's own benchmark client; a made-up GPU is a stand-in for the driver's library
under the real nvidia-ml-py; real vLLM on CPU is broken by a plugin, its environment, its command
line, its checkpoint, or by signals to its processes.
"""
