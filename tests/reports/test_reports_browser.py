"""The report in a real browser: Chromium from the system, driven by Playwright, axe-core over all.

Skipped, with the reason, where any of them is missing. One browser process serves all tests.
"""

from __future__ import annotations

import io
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from reports_fleet import Ill, host_records, write_host
from reports_matrix import HOSTILE, SIMULATED, make_run
from reports_replay import replay, reports_of

from acceptance.judging.comparison import compare
from reports.comparepage import render_comparison
from reports.fleet import main as judge_fleet
from reports.observing import observations
from reports.reading import read_results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
KINDS = ("passing", "failing", "invalid", "simulated", "hostile")
SCREEN = {"width": 1280, "height": 800}
LONG = "one line " * 120_000  # a megabyte
SERIOUS = ("serious", "critical")


def chromium() -> str:
    """The system's browser; empty when there is none."""
    asked = os.environ.get("CHROMIUM", "")
    return asked or next((path for name in NAMES if (path := shutil.which(name))), "")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """acceptance.html of each kind of run, made by pytest-html and the suite's hooks; a
    comparison of two of them, and a fleet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACCEPTANCE_CHARTS", raising=False)
        return _made(tmp_path_factory.mktemp("browser"))


def _made(folder: Path) -> dict[str, Path]:
    slow, cached = {"balanced-b64": "slow"}, {"balanced-b16": "cached"}
    one = "fp8-8xh200-tp-ep", "fp4-4xb200-dp-ep"
    few: dict[str, Any] = {"tier": "gate", "checks": 14}
    runs = {
        "passing": make_run(folder / "passing"),
        "failing": make_run(folder / "failing", *one, **few, ill=slow, dead=True),
        "invalid": make_run(folder / "invalid", *one, **few, ill=cached, kept=9),
        "simulated": make_run(folder / "simulated", *SIMULATED[:2], **few),
        "hostile": make_run(folder / "hostile", *one[:1], **few, said=HOSTILE, ill=slow),
    }
    made = {}
    for kind, run in runs.items():
        output = HOSTILE + LONG if kind == "hostile" else ""
        made[kind] = replay(reports_of(run.folder, output=output), folder, run=run.folder)
    made["comparison"] = folder / "comparison.html"
    read = {kind: read_results(folder / kind) for kind in ("invalid", "failing")}
    seen = [observations(results, kind) for kind, results in read.items()]
    page = render_comparison(compare(*seen), read, 1, ["made up"])
    made["comparison"].write_text(page, encoding="utf-8")
    made["fleet"] = folder / "fleet.html"
    ills = {"n3": Ill(slow="balanced"), "n5": Ill(dead=True), HOSTILE: Ill(jitter=True)}
    names = [*(f"n{number}" for number in range(8)), HOSTILE]
    hosts = [
        write_host(folder / f"host-{number}", host_records(name, ill=ills.get(name, Ill())))
        for number, name in enumerate(names)
    ]
    (hosts[3] / "acceptance.html").write_text("its own", encoding="utf-8")
    judge_fleet([*map(str, hosts), "--html", str(made["fleet"])])
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    path = chromium()
    if not path:
        pytest.skip("no Chromium on this system: apt-get install chromium, or set $CHROMIUM")
    with driver.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        except driver.Error as error:
            pytest.skip(f"{path} does not start: {error.message.splitlines()[0]}")
        yield opened
        opened.close()


@dataclass
class Seen:
    """What a page did besides showing itself."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, path: Path, **context: Any) -> Iterator[Seen]:
    """A page in a context of its own."""
    made = browser.new_context(**{"viewport": SCREEN, **context})
    page = made.new_page()
    page.set_default_timeout(60_000)  # a loaded machine is no failure
    seen = Seen(page)
    page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else 0)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("dialog", lambda dialog: (seen.errors.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(path.as_uri())
    yield seen
    made.close()


@pytest.mark.parametrize("kind", [*KINDS, "comparison", "fleet"])
def test_opens_without_error_or_request(browser, reports, kind):
    with opened(browser, reports[kind]) as seen:
        seen.page.mouse.wheel(0, 20_000)
        seen.page.wait_for_timeout(100)
        assert seen.errors == []
        assert seen.requests == [reports[kind].as_uri()]


@pytest.mark.parametrize(
    ("kind", "word"),
    [("passing", "ACCEPTED"), ("failing", "REJECTED"), ("simulated", "SIMULATED")],
)
def test_first_screen_tells_the_verdict(browser, reports, kind, word):
    with opened(browser, reports[kind]) as seen:
        page = seen.page
        assert page.inner_text("#verdict-word") == word
        for part in ("#verdict-word", "table.deployments tbody tr:last-child", "#digest"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= SCREEN["height"], part
        assert ("ACCEPTED" in page.inner_text("body")) is (kind == "passing")


@pytest.mark.parametrize(("kind", "charts"), [("passing", 11), ("simulated", 7)])
def test_charts_are_drawn(browser, reports, kind, charts):
    from PIL import Image

    with opened(browser, reports[kind]) as seen:
        drawn = seen.page.locator("svg.chart")
        assert drawn.count() == charts
        for number in range(charts):
            shot = Image.open(io.BytesIO(drawn.nth(number).screenshot())).convert("RGB")
            assert min(shot.size) > 60
            counted = sorted(count for count, _ in shot.getcolors(shot.width * shot.height))
            assert len(counted) > 20, "a drawing has more than a few colours"
            assert counted[-1] < 0.995 * shot.width * shot.height, "it is not empty"


def test_points_lead_to_their_cells(browser, reports):
    with opened(browser, reports["passing"]) as seen:
        page = seen.page
        links = page.locator("svg.chart a[href]")
        told = links.evaluate_all("all => all.map(a => [a.href.baseVal, a.ariaLabel])")
        assert len(told) > 84
        assert all(name for _, name in told)
        missing = page.evaluate(
            "all => all.filter(([href]) => !document.getElementById(href.slice(1)))", told
        )
        assert missing == []
        links.first.focus()
        page.keyboard.press("Enter")
        slug = told[0][0].removeprefix("#")
        body = page.locator(f"[id='{slug}']")
        body.wait_for(state="visible")
        for part in ("Histogram", "As the client and the server saw it", "vllm bench serve"):
            assert part in body.inner_text()


def test_tables_sort_and_filter_by_keyboard(browser, reports):
    column = "table.cells tbody tr:not([hidden]) td:nth-child(6)"
    with opened(browser, reports["passing"]) as seen:
        page = seen.page
        header = page.locator("table.cells thead button", has_text="per GPU")
        header.focus()
        page.keyboard.press("Enter")
        up = [float(text) for text in page.locator(column).all_inner_texts()]
        page.keyboard.press("Enter")
        down = [float(text) for text in page.locator(column).all_inner_texts()]
        assert up == sorted(up)
        assert down == sorted(up, reverse=True)
        assert page.locator("table.cells th[aria-sort=descending]").count() == 1
        page.get_by_label("Filter", exact=True).first.fill("fp4-4xb200-dp-ep")
        page.get_by_label("Outcome").first.select_option("pass")
        rows = page.locator("table.cells tbody tr:not([hidden])")
        assert rows.count() == 21
        assert "21 of 84" in page.locator(".filters-own output").first.inner_text()
        assert seen.errors == []


def test_time_and_sessions_are_tables(browser, reports):
    with opened(browser, reports["invalid"]) as seen:
        page = seen.page
        page.get_by_role("link", name="Time", exact=True).click()
        rows = page.locator("table.sessions tbody tr")
        assert rows.count() == 2
        assert "was killed" in rows.nth(0).inner_text()
        assert "reached its end" in rows.nth(1).inner_text()
        page.locator("table.times thead button", has_text="Took").click()
        took = page.locator("table.times td:nth-child(5)")
        seconds = [float(v or 0) for v in took.evaluate_all("all => all.map(e => e.dataset.v)")]
        assert len(seconds) == 12
        assert seconds == sorted(seconds)
        assert seen.errors == []


def test_hostile_output_is_inert(browser, reports):
    with opened(browser, reports["hostile"]) as seen:
        page = seen.page
        page.locator("details").evaluate_all("all => all.forEach(d => { d.open = true; })")
        page.wait_for_timeout(200)
        assert page.evaluate("window.broken") is None
        assert page.locator("img[src='x']").count() == 0
        assert seen.errors == []
        assert seen.requests == [reports["hostile"].as_uri()]
        text = page.inner_text("body")
        assert "<script>window.broken = 1" in text
        assert not any(char in text for char in "\x00\x1b\u202e\u2066")
        assert str(7191 * 7193) not in text
        assert page.evaluate("document.documentElement.scrollWidth") <= SCREEN["width"]


@pytest.mark.parametrize("kind", ["failing", "simulated"])
def test_prints(browser, reports, kind):
    with opened(browser, reports[kind], color_scheme="dark") as seen:
        pdf = seen.page.pdf(format="A4")
        assert pdf.startswith(b"%PDF")
        assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") > 3


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("failing", "dark"),
        ("invalid", "light"),
        ("simulated", "light"),
        ("comparison", "dark"),
        ("fleet", "light"),
    ],
)
def test_axe_finds_nothing_serious(browser, reports, kind, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    with opened(browser, reports[kind], color_scheme=scheme) as seen:
        found = axe.Axe().run(seen.page).response["violations"]
        told = [
            (one["id"], one["nodes"][0]["html"][:200], one["nodes"][0].get("failureSummary", ""))
            for one in found
            if one["impact"] in SERIOUS
        ]
        assert told == []


def test_reads_without_scripts(browser, reports):
    with opened(browser, reports["failing"], java_script_enabled=False) as seen:
        page = seen.page
        assert page.inner_text("#verdict-word") == "REJECTED"
        assert page.locator("svg.chart").first.is_visible()
        assert page.locator("table.cells tbody tr").count() == 9
        page.locator("details.cell summary").first.click()
        assert page.locator("details.cell .cell-body").first.is_visible()
        assert not page.locator(".filters-own").first.is_visible()
