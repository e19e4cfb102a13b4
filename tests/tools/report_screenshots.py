"""Takes the report's pictures in docs/images with the system's Chromium.

    python tests/tools/report_screenshots.py

The runs are made up (tests/reports/reports_matrix.py) but for the slice, which is the evidence of
one H200. Run with the interpreter of the development tools.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "reports")]

from playwright.sync_api import sync_playwright  # noqa: E402
from reports_matrix import SIMULATED, make_run  # noqa: E402
from test_reports_browser import FLAGS, chromium  # noqa: E402

from acceptance.judging.comparison import compare  # noqa: E402
from reports.comparepage import render_comparison  # noqa: E402
from reports.observing import observations  # noqa: E402
from reports.reading import read_results  # noqa: E402
from reports.summary import render_page  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = ROOT / "docs" / "images"
EVIDENCE = ROOT / "docs" / "evidence" / "h200-slice"
SIZE = {"width": 1280, "height": 860}


def main() -> int:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        pages = _pages(Path(name))
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        _shoot(browser, pages["simulated"], "report.png")
        _shoot(browser, pages["simulated"], "report-dark.png", scheme="dark", part="#performance")
        _shoot(browser, pages["failing"], "report-failures.png", part="#failures")
        _shoot(browser, pages["simulated"], "report-performance.png", part="#performance")
        _shoot(browser, pages["simulated"], "report-cell.png", part="details.cell", opened=True)
        _shoot(browser, pages["slice"], "report-memory.png", part="#memory")
        _shoot(browser, pages["resumed"], "report-time.png", part="#history")
        _shoot(browser, pages["comparison"], "report-compare.png")
        browser.close()
    return 0


def _pages(folder: Path) -> dict[str, Path]:
    """Pages by name, each of a run of its own."""
    simulated = make_run(folder / "simulated", *SIMULATED, checks=28).folder
    again = make_run(
        folder / "again", *SIMULATED, checks=28, ill={"balanced-b64": "slow"}, dead=True
    ).folder
    resumed = make_run(folder / "resumed", *SIMULATED[:2], tier="gate", checks=28, kept=19).folder
    runs = {"simulated": simulated, "failing": again, "slice": EVIDENCE, "resumed": resumed}
    made = {}
    for name, run in runs.items():
        made[name] = folder / f"{name}.html"
        made[name].write_text(render_page(read_results(run), run), encoding="utf-8")
    read = {run.name: read_results(run) for run in (simulated, again)}
    seen = [observations(results, name) for name, results in read.items()]
    made["comparison"] = folder / "comparison.html"
    page = render_comparison(compare(*seen), read, 1, [])
    made["comparison"].write_text(page, encoding="utf-8")
    return made


def _shoot(
    browser: Browser,
    page: Path,
    name: str,
    *,
    scheme: str = "light",
    part: str = "",
    opened: bool = False,
) -> None:
    """One picture of the screen; part: scrolled to, and opened where it is closed."""
    context = browser.new_context(viewport=SIZE, color_scheme=scheme)
    shown = context.new_page()
    shown.goto(page.as_uri())
    if part:
        there = shown.locator(part).nth(12 if opened else 0)
        there.evaluate("e => { e.open = true; e.scrollIntoView({ block: 'start' }); }")
    shown.screenshot(path=IMAGES / name)
    context.close()
    print(IMAGES / name)


if __name__ == "__main__":
    sys.exit(main())
