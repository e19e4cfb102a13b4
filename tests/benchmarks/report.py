"""What the report costs: making it, and opening it in Chromium, against pytest-html's own of the
same results.

    python tests/benchmarks/report.py [--results 2000] [--rounds 3] [--no-browser]

A made-up run of four deployments and 84 cells, with so many tests. Each round replays them in a
pytest session of a fresh process, once into pytest-html as it comes and once into the suite's
report; recording is in neither. Making is CPU time of that process from its start to its end, for
a shared machine has no steady clock; opening is the time from navigation to the load event and the
next frame. Prints both ratios, the least of all rounds each. Targets: 1.5 and 2.0, and 4 MB.
"""

from __future__ import annotations

import argparse
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "reports")]

CHECKS = 170  # of each deployment, beside its cells
MAKING, OPENING, BYTES = 1.5, 2.0, 4_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--one", choices=["plain", "own"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return _one(asked.one, asked.folder)
    from reports_matrix import make_run
    from reports_replay import reports_of

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = make_run(folder / "run", checks=CHECKS)
        reports = reports_of(made.folder, least=asked.results)
        (folder / "reports.pickle").write_bytes(pickle.dumps(reports))
        spent: dict[str, list[float]] = {"plain": [], "own": []}
        for _ in range(asked.rounds):
            for kind, times in spent.items():
                times.append(_make(kind, folder))
        files = {"plain": folder / "plain.html", "own": made.folder / "acceptance.html"}
        size = files["own"].stat().st_size
        print(f"{len(reports) // 3} results, {size:,} bytes (at most {BYTES:,})")
        _told("making, CPU s", spent, MAKING)
        if not asked.no_browser:
            _told("opening, s", _open(files, asked.rounds), OPENING)
    return 0


def _make(kind: str, folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, __file__, "--one", kind, "--folder", str(folder)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _one(kind: str, folder: Path) -> int:
    from reports_replay import replay

    reports = pickle.loads((folder / "reports.pickle").read_bytes())
    replay(reports, folder, run=folder / "run" if kind == "own" else None)
    return 0


def _open(files: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    from playwright.sync_api import sync_playwright
    from test_reports_browser import FLAGS, SCREEN, chromium

    spent: dict[str, list[float]] = {kind: [] for kind in files}
    frame = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        for _ in range(rounds + 1):
            for kind, file in files.items():
                page = browser.new_context(viewport=SCREEN).new_page()
                began = time.monotonic()
                page.goto(file.as_uri())
                page.evaluate(frame)
                spent[kind].append(time.monotonic() - began)
                page.context.close()
        browser.close()
    return {kind: times[1:] for kind, times in spent.items()}  # the first one warms the browser


def _told(what: str, spent: dict[str, list[float]], target: float) -> None:
    least = {kind: min(times) for kind, times in spent.items()}
    for kind, times in spent.items():
        print(f"  {what}: {kind:<5} {' '.join(f'{t:.2f}' for t in times)}")
    print(f"{what}: {least['own'] / least['plain']:.2f} times pytest-html's (at most {target})")


if __name__ == "__main__":
    sys.exit(main())
