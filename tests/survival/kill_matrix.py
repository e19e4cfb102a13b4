"""`python tests/survival/kill_matrix.py --moments 20`: every kill at seeded random moments.

Prints the table of docs/reliability.md, and every trial as a line of JSON to --out. Exit status 1
when anything was left behind, lost, or judged otherwise.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from survival_kills import ROWS, Found, Kill, as_json, break_off  # noqa: E402
from survival_world import ALONE, BESIDE, World, recorded, verdict  # noqa: E402

from reports.reading import read_results  # noqa: E402
from reports.sessions import done  # noqa: E402

SEED = 20261124


@dataclass(frozen=True)
class Unbroken:
    """A run that nobody killed: lines of its record, tests that it finished, its verdict."""

    lines: int
    tests: int
    word: str


def unbroken(world: World, words: tuple[str, ...]) -> Unbroken:
    run_dir = world.new()
    world.start(run_dir, *words, "--run-dir", str(run_dir)).wait()
    tests = len(done(read_results(run_dir).records))
    return Unbroken(recorded(run_dir), tests, verdict(run_dir).word)


def trial(world: World, kill: Kill, moment: int, whole: Unbroken) -> Found:
    draw = random.Random(f"{SEED} {kill.name} {moment}")
    found = break_off(world, kill, whole.lines, draw)
    if found.word == whole.word and found.kept < whole.tests:
        found.wrong.append(f"said {found.word} of {found.kept} tests of {whole.tests}")
    if found.resumed != whole.word:
        found.wrong.append(f"resumed to {found.resumed or 'nothing'}, unbroken {whole.word}")
    return found


def table(trials: list[Found]) -> list[str]:
    """Rows of Markdown, one for each kill."""
    lines = [
        "| killed, by | moments | hit | gone within | as it stood | resumed |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.name for row in ROWS):
        mine = [found for found in trials if found.kill == name]
        if not mine:
            continue
        hit = [found for found in mine if found.hit]
        slowest = max((found.seconds for found in hit), default=0.0)
        stood, resumed = (
            _counted(words)
            for words in (
                tuple(f.word for f in mine),
                tuple(f.resumed for f in mine),
            )
        )
        lines.append(
            f"| {name} | {len(mine)} | {len(hit)} | {slowest:.1f} s | {stood} | {resumed} |"
        )
    return lines


def _counted(words: tuple[str, ...]) -> str:
    return ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words)))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first moment")
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--beside", type=int, default=3, help="trials at once")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--table", type=Path, help="only print the table of such a file")
    given = parser.parse_args()
    if given.table:
        told = [Found(**json.loads(line)) for line in given.table.read_text().splitlines()]
        print("\n".join(table(told)))
        return 0
    trials: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        world = World(Path(name))
        known = {words: unbroken(world, words) for words in (ALONE, BESIDE)}
        print({" ".join(words): told for words, told in known.items()}, flush=True)
        with ThreadPoolExecutor(given.beside) as pool:
            asked = [
                pool.submit(trial, world, kill, moment, known[kill.words])
                for moment in range(given.first, given.first + given.moments)
                for kill in ROWS
                if given.rows in kill.name
            ]
            for one in as_completed(asked):
                found = one.result()
                trials.append(found)
                if given.out:
                    with given.out.open("a") as out:
                        out.write(as_json(found) + "\n")
                for what in found.wrong:
                    print(f"WRONG {found.kill} at {found.at}: {what}", flush=True)
    print("\n".join(table(trials)))
    wrong = [found for found in trials if found.wrong]
    print(f"{len(trials)} kills, {len(wrong)} with something wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
