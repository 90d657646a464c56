"""The site in a headless Chromium: no errors, no requests, sorting, filtering and comparing work, axe finds nothing.

Needs a Chromium (``SLIMBENCH_CHROMIUM`` names its program) and the extra ``browser``: playwright, axe-playwright-python
for accessibility, plotly for curves. `make browser` fetches them all.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib import util
from pathlib import Path

import pytest

from slimbench.store import Store
from test_site import CARDS, COURSE, built, measured, records

_NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
PROGRAM = os.environ.get("SLIMBENCH_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
ASKED = "SLIMBENCH_CHROMIUM" in os.environ  # then nothing is skipped: CI must not pass by lacking a package


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skips where a package is absent, unless a Chromium was named."""
    absent = [name for name in packages if util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent) and not ASKED, reason=f"needs {', '.join(absent)}")


pytestmark = [needs("playwright"), pytest.mark.skipif(PROGRAM is None, reason="needs a Chromium")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A small site on disk."""
    assert CARDS
    folder = tmp_path_factory.mktemp("browser")
    store = Store(folder / "store")
    for one in (found := records()):
        store.put(one)
    store.put(measured(found[2]))
    store.put(measured(found[4], 1.25, 1.2, 1.3, disturbed="other work"))
    (store.root / "evolutions").mkdir()
    (store.root / "evolutions" / "00ff.json").write_text(json.dumps(COURSE))
    return built(folder / "site", store)


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser, site):
    """Opens a page of the site; whatever it complains of or asks the network for fails the test."""
    contexts, wrong = [], []

    def opened(name, **look):
        context = browser.new_context(offline=True, **look)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
        page.goto((site / name).as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def kinds(site: Path) -> list[str]:
    """One page of each kind."""
    folders = [next(iter(sorted((site / kind).iterdir()))) for kind in ("tasks", "methods", "cells", "evolutions")]
    return ["index.html", "claims.html", "compare.html", *(str(page.relative_to(site)) for page in folders)]


def test_every_kind_of_page_loads(visit, site):
    """On a phone too, where nothing but tables may be wider than the screen."""
    for name in kinds(site):
        page = visit(name, viewport={"width": 390, "height": 800})
        assert page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_sorting_by_keyboard(visit, site):
    """Enter on a head sorts up, again down; the head says so; numbers sort as numbers."""
    page = visit(kinds(site)[3])
    table = page.locator("table.data").first
    heads = table.locator("thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.startswith("top1"))
    head = table.locator("thead th").nth(place)

    def column():
        texts = table.locator(f"tbody tr > :nth-child({place + 1})").all_inner_texts()
        return [float(text.split()[0]) for text in texts if text.strip()]

    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column() == [90.5, 91.25, 92.5]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column() == [92.5, 91.25, 90.5]
    assert page.locator("[aria-sort]").count() == 1


def test_sorting_speed_ups(visit, site):
    """Digits behind the point count."""
    page = visit(kinds(site)[3])
    table = page.locator("table.data").first
    heads = table.locator("thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.startswith("measured speed-up"))
    table.locator("thead button").nth(place).click()
    texts = table.locator(f"tbody tr > :nth-child({place + 1})").all_inner_texts()
    assert [text.split()[0] for text in texts if text.strip()] == ["1.25x", "1.50x"]


def test_filtering(visit):
    """Rows without the words go, and the count is told."""
    page = visit("index.html")
    page.get_by_label("Filter rows").fill("dcss 0.5")
    rows = page.locator("table.data tbody tr:visible").all_inner_texts()
    assert rows
    assert all("dcss" in row for row in rows)
    assert page.locator("output").inner_text().startswith(f"{len(rows)} of ")


def test_comparing_two_methods(visit):
    """Both chosen, one row is left: theirs."""
    page = visit("compare.html")
    page.get_by_label("One method").select_option("dcss")
    page.get_by_label("Other method").select_option("l1_channels")
    (row,) = page.locator("table.data tbody tr:visible").all_inner_texts()
    assert "dcss" in row
    assert "l1_channels" in row
    assert "+0.75" in row


def test_dark_and_light(visit):
    """By the system, and by the button."""
    page = visit("index.html", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate(ground) == "rgb(255, 255, 255)" != dark


def test_filtering_by_a_title(visit):
    """It holds for every row of its table; what has no row left goes with its heading, pictures and footnotes."""
    page = visit("index.html")
    field, tables = page.get_by_label("Filter rows"), page.locator("section:has(> h2:text('Each task'))")
    field.fill("trained in")  # so says the title of a task's table, and no row
    every = tables.locator("tbody tr").count()
    assert page.locator("table.data tbody tr:visible").count() == tables.locator("tbody tr:visible").count() == every
    assert page.locator("figure:visible").count() == 0
    field.fill("zzzz")
    assert page.locator("output").inner_text().startswith("0 of ")
    assert page.locator("h3:visible, table.data:visible, details:visible").count() == 0
    field.fill("")
    assert page.locator("table.data:visible").count() == page.locator("table.data").count()
    assert page.locator("figure:visible").count() == 1


@needs("plotly")
def test_curves_are_drawn(visit, site):
    """Points of every method against each cost."""
    page = visit(kinds(site)[3])
    assert page.locator(".curve .plot .points path").count() == 3
    assert page.locator(".speed .plot .points path").count() == 2
    page.locator(".curve select").select_option("2")  # latency: two were timed
    assert page.locator(".curve .plot .points path").count() == 2
    page.set_viewport_size({"width": 390, "height": 800})
    page.reload()
    page.locator(".curve select").select_option("2")  # so the legend, which stands below here, has a line less
    heights = page.locator(".curve .plot, .curve .plot .main-svg").evaluate_all("all => all.map(e => e.clientHeight)")
    assert len(set(heights)) == 1


@needs("plotly")
def test_disturbed_timings_are_faint(visit, site):
    """As in the pictures; where the pointer rests, the curve says why."""
    page = visit(kinds(site)[3])
    page.locator(".curve select").select_option("2")
    for kind in ("curve", "speed"):
        assert page.locator(f".{kind} .trace[style*='opacity: 0.45'] .points path").count() == 1
        texts = page.evaluate(f"document.querySelector('.{kind} .plot').data.flatMap((trace) => trace.text || [])")
        assert sum("disturbed: other work" in text for text in texts) == 1


@needs("plotly")
def test_curves_can_be_read(visit, site):
    """The legend covers no axis and is whole; intervals of two seeds do not stretch the axis of the means."""
    box = "document.querySelector('{} {}').getBoundingClientRect()"
    for width in (390, 1280):
        page = visit(kinds(site)[3], viewport={"width": width, "height": 800})
        for kind in (".curve", ".speed"):
            legend, title = (page.evaluate(box.format(kind, part)) for part in (".legend", ".xtitle"))
            assert legend["left"] > title["right"] or legend["top"] > title["bottom"]
            assert page.locator(f"{kind} .legend .scrollbar").bounding_box()["height"] == 0
        low, high = page.evaluate("document.querySelector('.curve .plot').layout.yaxis.range")
        assert 90 < low < 90.5  # the interval of the lower mean reaches down to 84.1
        assert 92.5 < high < 93


@needs("plotly")
def test_curves_that_were_hidden(visit, site):
    """While no row fits; once some do, they are as wide as the page is by then."""
    page = visit(kinds(site)[3], viewport={"width": 1280, "height": 800})
    field = page.get_by_label("Filter rows")
    field.fill("zzzz")
    page.set_viewport_size({"width": 900, "height": 800})
    page.wait_for_timeout(300)  # plotly itself answers a resized window, but after a while, and not where it is hidden
    field.fill("")
    page.wait_for_timeout(300)
    plot = "document.querySelector('.curve .plot')"
    widths = [page.evaluate(f"{one}.clientWidth") for one in (plot, f"{plot}.querySelector('.main-svg')")]
    assert 0 < widths[0] == widths[1] < 900


@needs("axe_playwright_python")
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing(visit, site, scheme):
    """WCAG 2.1 A and AA on one page of each kind."""
    place = util.find_spec("axe_playwright_python").submodule_search_locations[0]
    script = (Path(place) / "axe.min.js").read_text()
    for name in kinds(site):
        page = visit(name, color_scheme=scheme)
        page.evaluate(script)
        options = "{preload: false, runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}"
        found = page.evaluate(f"axe.run({options}).then(r => r.violations.map(v => [v.id, v.nodes[0].html]))")
        assert found == [], name
