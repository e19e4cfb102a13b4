"""Scores the suite by the catalogue of defects: `python tests/defects [--quick] [--only GLOB]`.

    --quick     what needs no real vLLM as its server
    --untimed   what is found without a clock; with --quick it is what the suite's own tests run
    --only      entries by id; may be given more than once
    --world     proxy, simulated, gpu, speed or vllm; may be given more than once
    --on-vllm   entries of the world proxy before real vLLM instead of a simulated server
    --keep DIR  leave what the runs wrote there, in a folder that is new or empty
    --lock FILE  held (flock) while real vLLM runs
    --write     merge the scores into scores.json and write docs/defects.md from it

Exit code: 0 when everything that is expected to be detected was, and no healthy twin fell short.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from defects_scoring import Score

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":  # also as `python -m tests.defects`
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def main(words: list[str]) -> int:
    from defects_campaign import Campaign
    from defects_catalogue import World, catalogue
    from defects_report import short, summary, write

    parser = argparse.ArgumentParser("accept defects", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true")
    add("--untimed", action="store_true")
    add("--only", action="append", default=[])
    add("--world", action="append", default=[], choices=[str(world) for world in World])
    add("--on-vllm", action="store_true")
    add("--keep", type=Path)
    add("--lock", type=Path)
    add("--write", action="store_true")
    given = parser.parse_args(words)
    chosen = [
        defect
        for defect in catalogue().values()
        if (not given.quick or defect.quick)
        and (not given.untimed or not defect.timed)
        and (not given.world or defect.world in given.world)
        and (not given.only or any(fnmatchcase(defect.id, glob) for glob in given.only))
        and (not given.on_vllm or defect.world is World.PROXY)
    ]
    if not chosen:
        parser.error("no entry fits")
    if given.keep and given.keep.is_dir() and any(given.keep.iterdir()):
        parser.error(f"{given.keep} is not empty: what is there would be taken for this campaign's")
    with tempfile.TemporaryDirectory(prefix="defects-") as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(folder.resolve(), lock=given.lock)
        if given.write:  # at once, so that a campaign that is broken off has not been for nothing
            guard = threading.Lock()

            told = [word for word in words if word not in ("--keep", str(given.keep))]
            told = [word for word in told if word not in ("--lock", str(given.lock))]

            def keep(name: str, found: Score) -> None:
                with guard:
                    write({name: found}, told, on_vllm=given.on_vllm)

            campaign.keep = keep
        campaign.run(chosen, on_vllm=given.on_vllm)
    print(summary(campaign.scores))
    return 1 if short(campaign.scores) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
